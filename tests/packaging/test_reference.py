# SPDX-License-Identifier: Apache-2.0
"""The reference names everything that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_compilepool import marks, newhooks, options
from pytest_compilepool.fixtures import conformance, engines, pools, proofs
from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.census import builtin_checkers

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"

NAMES = [
    *(option.flag for option in options.OPTIONS),
    *(f"@pytest.mark.{marker.__name__}" for marker in marks.MARKERS),
    *(name for name in vars(newhooks) if name.startswith("pytest_compilepool_")),
    *(f"`{checker.name}`" for checker in builtin_checkers(Owned())),
    *(
        name
        for room in (pools, proofs, conformance, engines)
        for name, value in vars(room).items()
        if type(value).__name__ == "FixtureFunctionDefinition" and not name.startswith("_")
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_the_reference(name):
    assert name in REFERENCE.read_text(encoding="utf-8")
