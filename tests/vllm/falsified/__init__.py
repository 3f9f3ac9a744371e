# SPDX-License-Identifier: Apache-2.0
"""Recordings of real starts, falsified: one file for each of the suite's files about vLLM, with what it must notice."""

from __future__ import annotations

from falsified import faults, lifecycle, processes, results
from falsified.telling import Lies

LIES: Lies = {**lifecycle.LIES, **results.LIES, **processes.LIES, **faults.LIES}
