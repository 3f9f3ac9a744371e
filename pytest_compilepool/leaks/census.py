# SPDX-License-Identifier: Apache-2.0
"""A census: what a set of checkers measured at one moment; and the verdict between two of them."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.leaks import asking
from pytest_compilepool.leaks.base import MISSING, LeakChecker, Owned, changes, plain_text
from pytest_compilepool.leaks.caches import CacheChecker
from pytest_compilepool.leaks.config import ConfigChecker
from pytest_compilepool.leaks.counters import CounterChecker
from pytest_compilepool.leaks.cwd import CwdChecker
from pytest_compilepool.leaks.environ import EnvironChecker
from pytest_compilepool.leaks.fds import FdChecker
from pytest_compilepool.leaks.filters import WarningsChecker
from pytest_compilepool.leaks.gpu import GpuChecker
from pytest_compilepool.leaks.pools import PoolChecker
from pytest_compilepool.leaks.processes import ProcessChecker
from pytest_compilepool.leaks.signals import SignalChecker
from pytest_compilepool.leaks.threads import ThreadChecker
from pytest_compilepool.records import Leak, Snapshot

FIRST_PAUSE = 0.001  # seconds; doubled each time
LONGEST_PAUSE = 0.1

Delta = dict[str, dict[Hashable, tuple[Any, Any]]]
"""checker name -> key -> (old or MISSING, new or MISSING)"""


@dataclass(frozen=True)
class Census:
    """What was measured.

    taken_at: `time.monotonic()`, seconds; snapshots: by the checker's name, None where it could not tell;
    errors: a sentence for each checker that failed.
    """

    taken_at: float
    snapshots: dict[str, Snapshot | None]
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    leaks: to be reported, in the order of the checkers. waited, grace: seconds of the grace that were
    used, and that there were. silent: to be put right by `restore` too, but not worth a word. errors: a
    sentence for each checker that failed in one of the two censuses or between them, so that it cannot tell.
    """

    leaks: list[Leak]
    waited: float
    grace: float
    silent: list[Leak] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def measure(checkers: Sequence[LeakChecker]) -> Census:
    """Ask every checker now. One that fails cannot tell."""
    taken_at = Genuine.monotonic()
    errors: list[str] = []
    snapshots: dict[str, Snapshot | None] = {}
    # Of one moment: who asks for the process table, and be it who says what is owned, gets the same one.
    with proctree.one_reading():
        for checker in checkers:
            try:
                snapshots[checker.name] = asking.measure(checker)
            except asking.CheckerError as error:
                snapshots[checker.name] = None
                errors.append(str(error))
    return Census(taken_at, snapshots, errors)


def delta(before: Census, after: Census) -> Delta:
    """Everything that changed, judged or not; checkers that could not tell on either side are left out."""
    found: Delta = {}
    for name, new in after.snapshots.items():
        old = before.snapshots.get(name)
        if old is not None and new is not None:
            changed = {key: (was, now) for key, was, now in changes(old, new)}
            if changed:
                found[name] = changed
    return found


def merged(census: Census, change: Delta) -> Census:
    """The census as if `change` had happened before it.

    This takes what a module- or session-scoped fixture made out of a test's account.
    """
    return _applied(census, change, 1)


def reverted(census: Census, change: Delta) -> Census:
    """The census as if `change` had never happened.

    This puts what a wider fixture made back to the account when that fixture has ended.
    """
    return _applied(census, change, 0)


def _applied(census: Census, change: Delta, side: int) -> Census:
    snapshots = dict(census.snapshots)
    for name, changed in change.items():
        snapshot = snapshots.get(name)
        if snapshot is None:
            continue
        snapshot = dict(snapshot)
        for key, pair in changed.items():
            if pair[side] is MISSING:
                snapshot.pop(key, None)
            else:
                snapshot[key] = pair[side]
        snapshots[name] = snapshot
    return Census(census.taken_at, snapshots, list(census.errors))


def _ignore_none(leak: Leak) -> bool:
    return False


def compare(
    checkers: Sequence[LeakChecker],
    before: Census,
    grace: float,
    ignore: Callable[[Leak], bool] = _ignore_none,
) -> Verdict:
    """Measure again and say what is left over.

    grace: seconds that leaks which can settle get for it; ignore: says of a leak that it does not
    count, nor is worth waiting for. Garbage is collected once before anything is called a leak. A checker
    that fails stops no other one: it cannot tell, and `Verdict.errors` says why.
    """
    comparison = _Comparison(before, ignore)
    left = comparison.look(checkers)
    waited = 0.0
    if left:
        gc.collect()
        left = comparison.look(left)
        # Collecting takes a tenth of a second with torch loaded: that is not the leaks' time.
        started = Genuine.monotonic()
        pause = FIRST_PAUSE
        while settling := [checker for checker in left if checker.settles]:
            remaining = started + grace - Genuine.monotonic()
            if remaining <= 0:
                break
            Genuine.sleep(min(pause, remaining))
            pause = min(pause * 2, LONGEST_PAUSE)
            still = comparison.look(settling)
            left = [checker for checker in left if checker in still or not checker.settles]
        waited = Genuine.monotonic() - started if pause > FIRST_PAUSE else 0.0
    return comparison.verdict(checkers, waited, grace)


class _Comparison:
    """The leaks of each checker, as last looked at."""

    def __init__(self, before: Census, ignore: Callable[[Leak], bool]) -> None:
        self._before = before
        self._ignore = ignore
        self._leaks: dict[str, list[Leak]] = {}
        self._silent: dict[str, list[Leak]] = {}
        self._errors = list(before.errors)

    def look(self, checkers: Iterable[LeakChecker]) -> list[LeakChecker]:
        """Measure these again. Returns those that found a leak."""
        leaking = []
        for checker in checkers:
            try:
                leaks, silent = self._ask(checker)
            except asking.CheckerError as error:
                leaks, silent = [], []
                self._errors.append(str(error))
            self._leaks[checker.name] = [leak for leak in leaks if not self._ignore(leak)]
            self._silent[checker.name] = silent
            if self._leaks[checker.name]:
                leaking.append(checker)
        return leaking

    def _ask(self, checker: LeakChecker) -> tuple[list[Leak], list[Leak]]:
        old = self._before.snapshots.get(checker.name)
        with proctree.one_reading():
            new = None if old is None else asking.measure(checker)
        if old is None or new is None:
            return [], []
        return asking.diff(checker, old, new), asking.silent(checker, old, new)

    def verdict(self, checkers: Iterable[LeakChecker], waited: float, grace: float) -> Verdict:
        names = [checker.name for checker in checkers]
        age = f"within the last {Genuine.monotonic() - self._before.taken_at:.2f} s"
        leaks = [leak for name in names for leak in self._leaks[name]]
        leaks = [dataclasses.replace(leak, since=leak.since or age) for leak in leaks]
        silent = [leak for name in names for leak in self._silent[name]]
        return Verdict(leaks, waited, grace, silent, self._errors)


def builtin_checkers(
    owned: Owned, *, restored_by_pytest: bool = True, report_counter_growth: bool = False
) -> list[LeakChecker]:
    """One of each kind, in the order in which leaks are put right: a pool first, then what is left of it.

    owned: what to pass over; restored_by_pytest: pytest puts warnings filters back itself (it does unless its
    `warnings` plugin is off); report_counter_growth: report counters that a compile has moved, too.
    """
    return [
        PoolChecker(owned),
        ProcessChecker(owned),
        ThreadChecker(owned),
        FdChecker(owned),
        EnvironChecker(),
        ConfigChecker(),
        CounterChecker(report_counter_growth),
        CacheChecker(),
        GpuChecker(),
        CwdChecker(),
        SignalChecker(),
        WarningsChecker(restored_by_pytest),
    ]


def restore(checkers: Sequence[LeakChecker], leaks: Sequence[Leak]) -> list[str]:
    """Have each checker put its leaks right, in their order. Returns a sentence for each one that failed."""
    errors = []
    for checker in checkers:
        own = [leak for leak in leaks if leak.checker == checker.name]
        try:
            if own:
                asking.restore(checker, own)
        except asking.CheckerError as error:
            errors.append(str(error))
    return errors


def text_of(checker: LeakChecker, leak: Leak) -> str:
    """The leak as several lines, in plain words where the checker fails to find its own."""
    try:
        return asking.text(checker, leak)
    except asking.CheckerError as error:
        return plain_text(leak, str(error))
