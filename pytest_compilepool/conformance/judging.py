# SPDX-License-Identifier: Apache-2.0
"""A verdict beside what was expected."""

from __future__ import annotations

from pytest_compilepool.conformance.expectations import Expectation
from pytest_compilepool.conformance.verdict import Verdict


def judge(verdict: Verdict, expectation: Expectation | None) -> Verdict:
    """Note in the verdict what was expected, and its outcome. Strict: a promise that is kept against expectation is told.

    expectation: for this feature and this torch, or None. A status list that holds PASS is for what differs from run
    to run.
    """
    if expectation is not None:
        verdict.expected, verdict.bug = list(expectation.status), expectation.bug
    if verdict.status == "SKIP":
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
