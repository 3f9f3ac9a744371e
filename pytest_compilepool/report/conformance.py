# SPDX-License-Identifier: Apache-2.0
"""What is printed and written of a conformance suite: letters, a table by group, what was not expected, the cell file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_compilepool.runrecord import LEAKS_PROPERTY, find_property

# Every session loads this file; what verdicts are is loaded with the first report that may carry one.
if TYPE_CHECKING:
    from pytest_compilepool.conformance.verdict import Verdict
    from pytest_compilepool.report.cellfile import CellFile

_HEADS = {
    "conforms": "kept",
    "known": "known defect",
    "unexpected": "unexpected",
    "unexpected-pass": "unexpected pass",
    "not-tested": "not tested",
}


def verdict_of(report: Any) -> Verdict | None:
    """The verdict that the report of a call carries, or None for any other report."""
    properties = getattr(report, "user_properties", None)
    if not properties or getattr(report, "when", "") != "call":
        return None
    from pytest_compilepool.conformance.verdict import PROPERTY, Verdict

    text = find_property(properties, PROPERTY)
    return None if text is None else Verdict.from_text(text)


def status(report: Any) -> tuple[str, str, str] | None:
    """The letter of a feature: `x` a known defect, `F` unexpected, `U` an unexpected pass."""
    verdict = verdict_of(report)
    if verdict is None or verdict.outcome not in ("unexpected", "unexpected-pass"):
        return None
    from pytest_compilepool.conformance.verdict import OUTCOMES

    return "failed", OUTCOMES[verdict.outcome], f"{_HEADS[verdict.outcome].upper()} ({verdict.status})"


class Verdicts:
    """What came in from all processes of the session; a plugin of its own, so that it hears of every report.

    mode: in which the suite was run; ci: stale expectations matter; run_info: what the verdicts depend on, by name;
    stale: a line for each expectation that no supported torch can meet; lost: tests whose process died; folders: of the
    suites; leaks: what tests of features left, by feature; problem: why the cell could not be written.
    """

    def __init__(self, mode: str, ci: bool = False) -> None:
        self.mode, self.ci = mode, ci
        self.verdicts: dict[str, Verdict] = {}
        self.run_info: dict[str, str] = {}
        self.stale: list[str] = []
        self.lost: list[str] = []
        self.folders: set[str] = set()
        self.leaks: dict[str, list[str]] = {}
        self.problem = ""
        self._features: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the verdict of a feature; under xdist it comes from a worker."""
        if report.when not in ("setup", "call", "teardown"):
            # xdist's word for a worker that died at it.
            self.lost.append(report.nodeid)
        verdict = verdict_of(report)
        if verdict is not None:
            from pytest_compilepool.conformance.verdict import RUN, STALE, SUITE

            self.verdicts[verdict.feature] = verdict
            self.run_info.update(json.loads(find_property(report.user_properties, RUN) or "{}"))
            self.stale = json.loads(find_property(report.user_properties, STALE) or "[]")
            self.folders.add(find_property(report.user_properties, SUITE) or "")
            self._features[report.nodeid] = verdict.feature
        elif report.nodeid in self._features and report.failed:
            text = find_property(report.user_properties, LEAKS_PROPERTY)
            if text is not None:
                self.leaks[self._features[report.nodeid]] = text.split(", ")

    @property
    def tried(self) -> int:
        """How many features were tried."""
        return sum(verdict.outcome != "not-tested" for verdict in self.verdicts.values())

    def of(self, outcome: str) -> list[Verdict]:
        """Those with that outcome."""
        return [verdict for verdict in self.verdicts.values() if verdict.outcome == outcome]


def conclude(session: pytest.Session, found: Verdicts, cell_file: CellFile | None) -> None:
    """The verdicts have come in: they are written, and where nothing was tried the exit status says so."""
    if not found.verdicts:
        return
    if cell_file is not None:
        cut_short = bool(session.shouldstop or session.shouldfail or found.lost)
        ended = session.exitstatus in (0, pytest.ExitCode.TESTS_FAILED)
        if problem := cell_file.write(complete=ended and not cut_short):
            found.problem = problem
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
    if session.exitstatus == 0 and found.tried == 0:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
    if found.ci and found.stale and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def write_summary(reporter: pytest.TerminalReporter, found: Verdicts) -> None:
    """Nothing where no feature was among the tests."""
    if found.verdicts:
        reporter.section("conformance")
        for line in lines(found):
            reporter.write_line(line)


def lines(found: Verdicts) -> Iterator[str]:
    """First what this machine could not test and why; then the pool, the table, and all that was not plainly kept."""
    yield _not_tested(found)
    run = ", ".join(f"{name} {text}" for name, text in found.run_info.items() if name != "pool")
    yield f"{found.run_info.get('pool', 'the pool')}: {run}; mode {found.mode}"
    yield from table(found.verdicts.values())
    for outcome in ("unexpected", "unexpected-pass"):
        for verdict in found.of(outcome):
            first = (verdict.text.splitlines() or [""])[0]
            yield f"{_HEADS[outcome]}: {verdict.feature}: {verdict.status}: {first}"
    known = sorted(found.of("known"), key=lambda one: one.feature)
    for verdict in known:
        first = (verdict.text.splitlines() or [""])[0]
        yield f"known defect: {verdict.feature}: {verdict.status}: {first[:160]} ({verdict.bug})"
    broken = len(known) + len(found.of("unexpected"))
    kept = len(found.of("conforms"))
    yield f"{kept} of {found.tried} promises are kept; {broken} are not, {len(known)} of them known defects"
    for name in found.lost:
        yield f"no verdict: {name}: the process that tried it has died"
    if found.problem:
        yield found.problem
    for line in found.stale if found.ci else ():
        yield f"stale expectation: {line}"


def _not_tested(found: Verdicts) -> str:
    skipped = found.of("not-tested")
    reasons: dict[str, int] = {}
    for verdict in skipped:
        reasons[verdict.text] = reasons.get(verdict.text, 0) + 1
    why = "; ".join(f"{number} x {reason}" for reason, number in sorted(reasons.items()))
    return f"{len(skipped)} of {len(found.verdicts)} features could not be tested here" + (
        f": {why}" if why else ""
    )


def table(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """A row for each group: how many of each outcome, seconds of all its interpreters, and their letters."""
    from pytest_compilepool.conformance.verdict import OUTCOMES

    groups: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda one: one.feature):
        groups.setdefault(verdict.group, []).append(verdict)
    heads = [_HEADS[outcome] for outcome in OUTCOMES]
    yield f"{'group':<12}" + "".join(f"{head:>{len(head) + 2}}" for head in heads) + f"{'seconds':>9}"
    for group, members in groups.items():
        counts = [sum(one.outcome == outcome for one in members) for outcome in OUTCOMES]
        cells = "".join(f"{count or '-':>{len(head) + 2}}" for count, head in zip(counts, heads, strict=True))
        letters = "".join(OUTCOMES[one.outcome] for one in members)
        yield f"{group:<12}{cells}{sum(one.seconds for one in members):>9.1f}  {letters}"
