# SPDX-License-Identifier: Apache-2.0
"""The leak verdict of a test: a census before, one after, and what a wider scope made taken out of the account."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_compilepool import marks
from pytest_compilepool.keys import LEAKS, UNUSED
from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import LeakChecker, Owned, check_checkers
from pytest_compilepool.leaks.processes import adopt_orphans, stop_adopting
from pytest_compilepool.options import Settings
from pytest_compilepool.pool import closing
from pytest_compilepool.pool.manager import PoolManager
from pytest_compilepool.records import Leak
from pytest_compilepool.runrecord import LEAKS_PROPERTY
from pytest_compilepool.torch_compat import live_pools, others, pools
from pytest_compilepool.words import sendable

_AT_THE_END = ("processes", "threads", "fds")


@dataclass
class Account:
    """One test on its way: what was there before, and by which checkers."""

    item: pytest.Item
    engaged: bool
    checkers: list[LeakChecker]
    before: census.Census
    allowed: list[marks.Allowance] = field(default_factory=list)


class LeakWatch:
    """Measures before and after each test that is to be looked at; see the option `--compilepool-leaks`."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        manager: PoolManager,
        kept_pids: Callable[[], set[int]] = set,
        kept_fds: Callable[[], set[int]] = set,
    ) -> None:
        """kept_pids, kept_fds: of what else this session keeps from one test to the next."""
        self._config = config
        self._settings = settings
        self.owned = Owned(
            processes=lambda: manager.owned_pids() | kept_pids(),
            threads=manager.owned_threads,
            fds=lambda: manager.owned_fds() | kept_fds(),
            pools=manager.owned_pools,
        )
        self.checkers = self._all_checkers()
        self._cheap = [checker for checker in self.checkers if checker.cheap]
        self._judging_values = {checker.name for checker in self.checkers if checker.judges_values}
        self._current: Account | None = None
        self._scopes: dict[int, tuple[census.Delta, list[str]]] = {}
        self._session: census.Census | None = None
        self._adopting: Any = None
        self._told: set[tuple[str, str]] = set()
        self.errors: list[str] = []

    @property
    def names(self) -> frozenset[str]:
        """Names of all checkers, those of others too."""
        return frozenset(checker.name for checker in self.checkers)

    def checker(self, name: str) -> LeakChecker:
        """One checker by its name. Raises KeyError."""
        return next(checker for checker in self.checkers if checker.name == name)

    def begin(self, item: pytest.Item, engaged: bool, late: bool = False) -> None:
        """Before a test is set up. engaged: look at it in full, else only by what is cheap; late: it runs already."""
        if engaged and self._session is None:
            self._adopting = adopt_orphans()
            self._session = census.measure(self._end_checkers())
        checkers = self.checkers if engaged else self._cheap
        allowed = marks.allowances(item, self.names) if engaged else []
        self._current = Account(item, engaged, checkers, census.measure(checkers), allowed)
        if late:
            self._values_are_not_told()

    @contextlib.contextmanager
    def wider_scope(self, fixturedef: Any) -> Iterator[None]:
        """Around the setup of a fixture of class, module, package or session scope."""
        account = self._current
        assert account is not None
        before = census.measure(account.checkers)
        try:
            yield
        finally:
            after = census.measure(account.checkers)
            made = census.delta(before, after)
            # What could not be told before it (torch was not imported yet) cannot be given back either.
            blind = [
                name
                for name, snapshot in before.snapshots.items()
                if snapshot is None and after.snapshots[name] is not None
            ]
            self._scopes[id(fixturedef)] = (made, blind)
            account.before = census.merged(account.before, made)

    def _values_are_not_told(self) -> None:
        """Nobody looked when something was set up that puts back what it has changed: monkeypatch, a fixture of wider scope.

        What it puts back cannot be told from what the test breaks.
        """
        if self._current is not None:
            snapshots = self._current.before.snapshots
            snapshots.update(dict.fromkeys(name for name in snapshots if name in self._judging_values))

    @property
    def watching(self) -> bool:
        """Whether a test is being looked at now."""
        return self._current is not None

    def begin_after(self, fixturedef: Any) -> None:
        """The census was taken in the middle of this fixture's setup: take it again, now that it is over."""
        account = self._current
        assert account is not None
        account.before = census.measure(account.checkers)
        self._scopes[id(fixturedef)] = ({}, list(account.before.snapshots))

    def engage(self) -> None:
        """The test that is looked at has turned out to use a pool of ours: it is judged in any case."""
        if self._current is not None:
            self._current.engaged = True

    def scope_ended(self, fixturedef: Any) -> None:
        """After such a fixture was torn down: what it made must be gone by the end of this test."""
        if id(fixturedef) not in self._scopes:
            self._values_are_not_told()
            return
        made, blind = self._scopes.pop(id(fixturedef))
        if self._current is not None:
            self._current.before = census.reverted(self._current.before, made)
            self._current.before.snapshots.update(dict.fromkeys(blind))

    def end(self, item: pytest.Item, pool_appeared: bool) -> tuple[list[Leak], str]:
        """After a test was torn down: judge, report on the item, put right. Returns the leaks and their report."""
        account, self._current = self._current, None
        if account is None or not (account.engaged or pool_appeared):
            return [], ""
        used: set[marks.Allowance] = set()
        pools_of_test = self._leaked_pools(account)

        def passed_over(leak: Leak) -> bool:
            if pools_of_test.have(leak):
                return True
            covering = [entry for entry in account.allowed if entry.covers(leak)]
            used.update(covering)
            fine = bool(covering) or self._fine_by_hook(item, leak)
            if fine:
                self._told.add((leak.checker, leak.key))
            return fine

        verdict = census.compare(account.checkers, account.before, self._settings.leak_grace, passed_over)
        leaks = verdict.leaks
        self._told.update((leak.checker, leak.key) for leak in leaks)
        texts = [self._text_of(leak) for leak in leaks]
        if leaks and verdict.waited:
            texts.append(
                f"(they had {verdict.waited:.2f} s to go away: compilepool_leak_grace = {verdict.grace:g})"
            )
        if leaks:
            item.stash[LEAKS] = [
                {"checker": leak.checker, "key": sendable(leak.key), "text": text}
                for leak, text in zip(leaks, texts, strict=False)
            ]
            summary = ", ".join(f"{leak.checker}:{leak.key}" for leak in leaks)
            item.user_properties.append((LEAKS_PROPERTY, sendable(summary)))
        unused = [entry for entry in account.allowed if entry not in used]
        item.stash[UNUSED] = [sendable(f"{entry} ({entry.reason})") for entry in unused]
        self._note_errors(verdict.errors, census.restore(account.checkers, [*leaks, *verdict.silent]))
        return leaks, "\n\n".join([f"{item.nodeid} left behind:", *texts])

    def finish(self) -> str:
        """The end of the session: what is left of it that was not there before its first watched test."""
        if self._session is None:
            return ""
        checkers = self._end_checkers()

        def told(leak: Leak) -> bool:
            # A thread that leaked from a test cannot be ended: it is that test's leak, and only once.
            return (leak.checker, leak.key) in self._told

        verdict = census.compare(checkers, self._session, self._settings.leak_grace, told)
        texts = [self._text_of(leak) for leak in verdict.leaks]
        self._note_errors(verdict.errors, census.restore(checkers, [*verdict.leaks, *verdict.silent]))
        stop_adopting(self._adopting)
        return "\n\n".join(texts)

    def _text_of(self, leak: Leak) -> str:
        """Its lines. Names of files and variables may hold what no report can: that is written out."""
        return sendable(census.text_of(self.checker(leak.checker), leak))

    def _fine_by_hook(self, item: pytest.Item, leak: Leak) -> bool:
        try:
            return bool(self._config.hook.pytest_compilepool_allowed_leak(item=item, leak=leak))
        except Exception as error:
            self._note_errors([f"hook pytest_compilepool_allowed_leak: {type(error).__name__}: {error}"])
            return False

    def _note_errors(self, *errors: list[str]) -> None:
        """What went wrong in a checker or a hook of somebody else: told once, in the summary."""
        for text in itertools.chain(*errors):
            if text not in self.errors:
                self.errors.append(text)

    def _leaked_pools(self, account: Account) -> _Belongings:
        checker = self.checker("pools")
        before, after = account.before.snapshots.get(checker.name), checker.measure()
        if before is None or after is None:
            return _Belongings([])
        keys = {leak.handle for leak in checker.diff(before, after)}
        return _Belongings([ref.object for ref in live_pools() if (ref.kind, id(ref.object)) in keys])

    def _end_checkers(self) -> list[LeakChecker]:
        return [checker for checker in self.checkers if checker.name in _AT_THE_END]

    def _all_checkers(self) -> list[LeakChecker]:
        restored = self._config.pluginmanager.hasplugin("warnings")
        checkers: list[LeakChecker] = census.builtin_checkers(self.owned, restored_by_pytest=restored)
        names = {checker.name for checker in checkers}
        for checker in self._offered_checkers():
            if checker.name in names:
                raise pytest.UsageError(
                    f"leak checker {checker.name!r} from {type(checker).__module__}: that name is taken; "
                    f"there are: {', '.join(sorted(names))}"
                )
            names.add(checker.name)
            checkers.append(checker)
        # A pool that is closed takes its processes, threads and descriptors with it: it comes first.
        return sorted(checkers, key=lambda checker: checker.name != "pools")

    def _offered_checkers(self) -> list[LeakChecker]:
        hook = "pytest_compilepool_leak_checkers"
        try:
            groups = getattr(self._config.hook, hook)(config=self._config)
            return [checker for group in groups for checker in check_checkers(group, f"hook {hook}")]
        except Exception as error:
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise pytest.UsageError(f"hook {hook}: {said}") from None


class _Belongings:
    """What belongs to pools that leaked: told once, with the pool, and not again as processes, threads and fds."""

    def __init__(self, pool_objects: list[Any]) -> None:
        self._numbers: dict[str, set[int]] = {"processes": set(), "threads": set(), "fds": set()}
        self._settings: set[str] = set()
        for pool in pool_objects:
            self._numbers["processes"].update(key.pid for key in closing.process_tree(pool))
            self._numbers["threads"] |= others.thread_ids(pool)
            self._numbers["fds"] |= pools.pool_fds(pool)
            facade = getattr(pool, pools.OWNER, None)
            if facade is not None:
                # Its shutdown gives torch back what it had; until then these are as the pool needs them.
                self._settings = {"inductor.compile_threads", "inductor.worker_start_method"}
                self._numbers["threads"] |= facade.owned_threads
                self._numbers["fds"] |= facade.owned_fds

    def have(self, leak: Leak) -> bool:
        """Whether this leak is a part of one of those pools. Checkers put pid, ident or fd into the handle."""
        if leak.checker == "config":
            return leak.key in self._settings
        numbers = self._numbers.get(leak.checker)
        return numbers is not None and _number(leak.handle) in numbers


def _number(handle: Any) -> int | None:
    """The pid, thread identifier or descriptor that a checker put into a leak's handle."""
    if isinstance(handle, tuple) and handle:
        handle = handle[0]
    if isinstance(handle, int):
        return handle
    values = (getattr(handle, name, None) for name in ("pid", "ident", "fd"))
    return next((value for value in values if isinstance(value, int)), None)
