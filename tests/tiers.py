# SPDX-License-Identifier: Apache-2.0
"""What is left out where a change is judged in minutes, and passed with COMPILEPOOL_TESTS=all: marked `thorough`."""

from __future__ import annotations

import os
from typing import Any

import pytest

ALL = os.environ.get("COMPILEPOOL_TESTS") == "all"
REASON = "thorough: COMPILEPOOL_TESTS=all passes it"


def further(*values: Any) -> list[Any]:
    """Parameters that try in another way what those before them try. values: tuples where there are several names."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.thorough)
        for value in values
    ]


def leave_out(items: list[pytest.Item]) -> None:
    """Skip those marked `thorough`, so that they are counted and told."""
    for item in items:
        if item.get_closest_marker("thorough") is not None:
            item.add_marker(pytest.mark.skip(reason=REASON))
