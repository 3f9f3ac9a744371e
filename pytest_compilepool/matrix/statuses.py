# SPDX-License-Identifier: Apache-2.0
"""What can come of a feature in a cell: twelve statuses, their letters, and which of them decides among several."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_compilepool.conformance.verdict import Verdict

MEANINGS = {
    "CRASH": "the interpreter died",
    "TIMEOUT": "an answer did not come within its bound",
    "ERROR": "the test itself could not be carried out",
    "FAIL": "not kept",
    "LEAK": "kept, and something was left behind",
    "XPASS": "kept, though a known defect was expected",
    "FLAKY": "differs from attempt to attempt, or between cells of one environment",
    "XFAIL": "not kept: a known defect",
    "PASS": "kept",
    "UNSUPPORTED": "this torch (or vLLM) cannot",
    "SKIP": "this machine cannot",
    "NOTRUN": "was not tried",
}
"""The one that is most worth looking at first: of several it decides."""

LETTERS = {
    "CRASH": "C",
    "TIMEOUT": "T",
    "ERROR": "E",
    "FAIL": "F",
    "LEAK": "L",
    "XPASS": "X",
    "FLAKY": "~",
    "XFAIL": "x",
    "PASS": "P",
    "UNSUPPORTED": "u",
    "SKIP": "s",
    "NOTRUN": "-",
}

UNEXPECTED = ("CRASH", "TIMEOUT", "ERROR", "FAIL", "LEAK", "XPASS", "FLAKY")
BROKEN = ("CRASH", "TIMEOUT", "ERROR", "FAIL", "LEAK")
"""Not kept, and nobody expected it."""

UNTRIED = ("UNSUPPORTED", "SKIP", "NOTRUN")
"""No evidence of anything."""

_ORDER = tuple(MEANINGS)


def of(verdict: Verdict) -> str:
    """The status of a verdict beside what was expected of it."""
    if len(set(verdict.attempts)) > 1:
        return "FLAKY"
    if verdict.outcome == "known":
        return "XFAIL"
    if verdict.outcome == "unexpected-pass":
        return "XPASS"
    return verdict.status


def worst(statuses: Iterable[str]) -> str:
    """The one that decides among several; NOTRUN where there is none."""
    return min(statuses, key=_ORDER.index, default="NOTRUN")
