# SPDX-License-Identifier: Apache-2.0
"""A verdict beside what was expected."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_compilepool.conformance.expectations import Expectation
from pytest_compilepool.conformance.verdict import UNTRIED, Verdict


def judge(verdict: Verdict, expectation: Expectation | None) -> Verdict:
    """Note in the verdict what was expected, and its outcome. Strict: a promise that is kept against expectation is told.

    expectation: for this feature and this torch, or None. A status list that holds PASS is for what differs from run
    to run.
    """
    if expectation is not None:
        verdict.expected, verdict.bug = list(expectation.status), expectation.bug
    if verdict.status in UNTRIED:
        verdict.outcome = "not-tested"
    elif verdict.status == "PASS":
        kept = not verdict.expected or "PASS" in verdict.expected
        verdict.outcome = "conforms" if kept else "unexpected-pass"
    else:
        verdict.outcome = "known" if verdict.status in verdict.expected else "unexpected"
    if verdict.outcome == "unexpected-pass" and expectation is not None:
        expected = ", ".join(expectation.status)
        torch = expectation.torch or "of any version"
        verdict.text = f"passes, but {expectation.where} expects {expected} for torch {torch}"
    return verdict


def tried(verdict: Verdict, attempts: Sequence[str]) -> Verdict:
    """Note in the last verdict what each attempt gave, where there were several. One that differs is unexpected even
    where the last one was kept: nobody knew of it."""
    if len(attempts) > 1:
        verdict.attempts = list(attempts)
        if len(set(attempts)) > 1:
            verdict.outcome = "unexpected"
            verdict.text = f"differs from attempt to attempt: {', '.join(attempts)}\n{verdict.text}".rstrip()
    return verdict
