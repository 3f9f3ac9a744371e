# SPDX-License-Identifier: Apache-2.0
"""A few functions of the standard library as they were when pytest loaded this plugin, before any test could patch them."""

from __future__ import annotations

from os import getpid
from time import monotonic, sleep

__all__ = ["getpid", "monotonic", "sleep"]
