# SPDX-License-Identifier: Apache-2.0
"""Stands in for vLLM: the names that the lifecycle looks for, in the order of events that a worker has."""

from __future__ import annotations

import os

__version__ = os.environ.get("STAND_IN_VERSION", "0.24.0")
