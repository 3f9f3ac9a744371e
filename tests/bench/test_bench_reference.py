# SPDX-License-Identifier: Apache-2.0
"""The how-to names every workload of `compilepool bench`. Its options are in the reference: tests/docs says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_compilepool.bench.workloads import WORKLOADS

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "bench.md"


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_workload_is_in_the_how_to(name):
    assert f"| `{name}` |" in HOW_TO.read_text(encoding="utf-8")
