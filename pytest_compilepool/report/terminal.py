# SPDX-License-Identifier: Apache-2.0
"""What the plugin prints: the header line, the letter L, the summary; and what reports carry for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pytest_compilepool.runrecord import (
    PROPERTY,
    REPORT_ATTRIBUTE,
    TIMED,
    UNUSED_ATTRIBUTE,
    TestRecord,
    find_property,
)

ERRORS = "compilepool_errors"
"""In what a worker of xdist sends at its end: the texts of its `Summary.errors`."""
_LONGEST = 4096  # characters of a text


# Compared by identity: pytest puts plugins into sets as soon as two folders have a conftest.py each.
class Summary:
    """What came in from all processes of the session; a plugin of its own, so that it hears of every report."""

    def __init__(self) -> None:
        self.total = TestRecord()
        self.leaked: dict[str, list[dict[str, str]]] = {}
        self.unused: dict[str, list[str]] = {}
        self.at_the_end: list[str] = []
        self.errors: list[str] = []
        self.went_down: list[str] = []
        self.of_workers: dict[str, list[str]] = {}

    def told_by(self, worker: str, output: object) -> None:
        """What a worker of xdist has to say at its end. worker: its name; output: what it sent, or None if it could not."""
        told = output.get(ERRORS) if isinstance(output, dict) else None
        for text in told if isinstance(told, list) else []:
            # What is wrong with one is mostly wrong with all: said once.
            self.of_workers.setdefault(str(text)[:_LONGEST], []).append(worker)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what the report of a teardown carries; under xdist it comes from a worker."""
        if report.when != "teardown":
            return
        text = find_property(report.user_properties, PROPERTY)
        if text is not None:
            self.total.add(TestRecord.from_text(text))
        leaks = getattr(report, REPORT_ATTRIBUTE, None)
        if leaks:
            self.leaked[report.nodeid] = leaks
        unused = getattr(report, UNUSED_ATTRIBUTE, None)
        if unused:
            self.unused[report.nodeid] = unused


def attach(report: Any, leaks: list[dict[str, str]], unused: list[str]) -> None:
    """Put on a report, as plain values that xdist can send, what `Summary` and `status` look for."""
    setattr(report, REPORT_ATTRIBUTE, leaks)
    setattr(report, UNUSED_ATTRIBUTE, unused)


def status(report: Any) -> tuple[str, str, str] | None:
    """`L` for a teardown that found a leak; counted as an error where the leak fails the test."""
    if getattr(report, "when", "") != "teardown" or not getattr(report, REPORT_ATTRIBUTE, None):
        return None
    return ("error" if report.failed else "leaked"), "L", "LEAKED"


def add_sections(
    report: pytest.TestReport, pools: Iterable[Any], others: list[tuple[str, Callable[[], str]]]
) -> None:
    """To a failed report: what each pool of the test was, and what happened to it; then sections of fixtures.

    others: title of each, and what gives its text.
    """
    for pool in pools:
        events = [
            f"  {event.what}{'' if event.took is None else f' {event.took:.3f} s'} {event.detail}".rstrip()
            for event in pool.timeline
        ]
        report.sections.append(("compile pool", "\n".join([pool.describe(), *events])))
    report.sections += [(title, text()) for title, text in others]


def write_summary(reporter: pytest.TerminalReporter, summary: Summary) -> None:
    """The table of pools, and every leak with what silences it. Nothing where no pool and no leak was."""
    total = summary.total
    if total.started or total.made_by_torch or total.times or summary.leaked or summary.at_the_end:
        reporter.section("compile pool")
        for line in pool_table(total):
            reporter.write_line(line)
    if total.notes:
        reporter.section("compile parity")
        for line in total.notes:
            reporter.write_line(line)
    if summary.leaked:
        reporter.section(f"leaks: {len(summary.leaked)} test{'s' * (len(summary.leaked) > 1)}")
        for nodeid, leaks in summary.leaked.items():
            reporter.write_line(f"{nodeid} left behind:", bold=True)
            for leak in leaks:
                reporter.write_line(_indented(leak["text"]))
    for nodeid, entries in summary.unused.items():
        reporter.write_line(
            f"{nodeid}: compilepool_leaks allows what did not leak: {'; '.join(entries)}; take it out of the marker"
        )
    if summary.went_down:
        reporter.section("xdist workers that went down")
        for line in summary.went_down:
            reporter.write_line(line)
    for text in summary.errors:
        reporter.write_line(f"compilepool: {text}", yellow=True)
    for text, workers in summary.of_workers.items():
        names = ", ".join(sorted(workers, key=lambda name: (len(name), name)))
        reporter.write_line(f"compilepool: {names}: {text}", yellow=True)
    for text in summary.at_the_end:
        reporter.write_line("left at the end of the session:", red=True)
        reporter.write_line(_indented(text))


def pool_table(total: TestRecord) -> list[str]:
    """Pools, jobs, and the length of each event in seconds: how many, median, longest."""
    import statistics

    jobs = ", ".join(
        f"{number} {name}" for name, number in total.jobs.items() if number or name == "submitted"
    )
    ahead = f" (of which {total.ahead} ahead of their test)" if total.ahead else ""
    lines = [
        f"pools started: {total.started} by fixtures{ahead}, {total.made_by_torch} by torch; jobs: {jobs or 'none'}"
    ]
    rows = [(name, total.times[name]) for name in TIMED if total.times.get(name)]
    if rows:
        lines.append(f"{'seconds':<10}{'n':>6}{'median':>10}{'longest':>10}")
    for name, lengths in rows:
        lines.append(f"{name:<10}{len(lengths):>6}{statistics.median(lengths):>10.3f}{max(lengths):>10.3f}")
    if total.reasons:
        counted = {reason: total.reasons.count(reason) for reason in total.reasons}
        lines.append("a sidecar was not shared: " + "; ".join(f"{n} x {r}" for r, n in counted.items()))
    return lines


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
