# SPDX-License-Identifier: Apache-2.0
"""Compile counters: read from torch, the pool, vLLM and others; expected, and compared with a checked-in baseline."""

from __future__ import annotations

from pytest_compilepool.counters.conditions import at_least, at_most, between, unchanged
from pytest_compilepool.counters.errors import (
    BadBaseline,
    BadInput,
    CountersDiffer,
    SourceFailed,
    UnknownCounter,
)
from pytest_compilepool.counters.source import CounterSource

__all__ = [
    "BadBaseline",
    "BadInput",
    "CounterSource",
    "CountersDiffer",
    "SourceFailed",
    "UnknownCounter",
    "at_least",
    "at_most",
    "between",
    "unchanged",
]
