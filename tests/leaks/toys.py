# SPDX-License-Identifier: Apache-2.0
"""Checkers of a third party's, for tests of the census."""

from __future__ import annotations

from typing import Any, ClassVar

from pytest_compilepool.leaks.base import LeakChecker
from pytest_compilepool.records import Snapshot


class Toy(LeakChecker):
    """A third party's checker with the least that one needs."""

    name: ClassVar[str] = "toy"

    def __init__(self, **things: Any) -> None:
        self.things: Snapshot | None = dict(things.items())
        self.measured = 0

    def measure(self) -> Snapshot | None:
        self.measured += 1
        return None if self.things is None else dict(self.things)


class ToyOfValues(Toy):
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False
