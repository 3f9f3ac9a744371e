# SPDX-License-Identifier: Apache-2.0
"""What came of a feature, as plain values that survive the way to xdist's controller and into a cell file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("PASS", "FAIL", "TIMEOUT", "CRASH")
"""PASS: kept. FAIL: not kept. TIMEOUT: an answer did not come within its bound. CRASH: the interpreter died."""

UNTRIED = ("SKIP", "UNSUPPORTED")
"""SKIP: this machine lacks something. UNSUPPORTED: the pool does."""

OUTCOMES = {
    "conforms": ".",
    "known": "x",
    "unexpected": "F",
    "unexpected-pass": "U",
    "not-tested": "s",
}
"""A verdict beside what was expected, and its letter."""

PROPERTY, RUN, STALE = "compilepool.feature", "compilepool.feature.run", "compilepool.feature.stale"
SUITE = "compilepool.feature.suite"
"""Under which names a test's report carries its verdict, what that depends on, expectations that nobody can meet, and the
folder of the suite."""


@dataclass
class Verdict:
    """feature: its id; status: one of STATUSES, or of UNTRIED; text: what was not kept, or why it was not tried; notes:
    figures that the scenario told; counters: that it told, by name; seconds: of the interpreter; requirement: the property
    that did not hold; attempts: the status of each, where there were several; expected: statuses of the expectation; bug:
    its link; outcome: one of OUTCOMES."""

    feature: str
    status: str
    text: str = ""
    notes: list[str] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    requirement: str = ""
    attempts: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    bug: str = ""
    outcome: str = ""

    def to_text(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Verdict:
        """The inverse of `to_text`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values)

    @property
    def group(self) -> str:
        """Of its feature."""
        return self.feature.partition(".")[0]
