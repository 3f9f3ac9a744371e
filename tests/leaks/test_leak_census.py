# SPDX-License-Identifier: Apache-2.0
"""The census: comparing, waiting, accounts of wider fixtures, and the checkers that are there."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import pytest
from toys import Toy, ToyOfValues

from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import MISSING, LeakChecker, Owned, changes
from pytest_compilepool.records import Leak, Snapshot


class TestCompare:
    def test_nothing_new_waits_for_nothing(self) -> None:
        checker = Toy(a=1)
        before = census.measure([checker])
        verdict = census.compare([checker], before, grace=30.0)
        assert verdict == census.Verdict([], 0.0, 30.0)
        assert checker.measured == 2

    def test_leak_that_stays_gets_all_of_the_grace(self) -> None:
        checker = Toy()
        before = census.measure([checker])
        checker.things = {"a": 1}
        verdict = census.compare([checker], before, grace=0.3)
        assert [leak.key for leak in verdict.leaks] == ["a"]
        assert 0.3 <= verdict.waited < 2.0
        # 1, 2, 4, ... 64, 100, 100 milliseconds: not a busy loop.
        assert 5 <= checker.measured <= 14

    def test_leak_that_settles_ends_the_wait(self) -> None:
        class Settling(Toy):
            def measure(self) -> Snapshot | None:
                if self.measured == 5:
                    self.things = {}
                return super().measure()

        checker = Settling()
        before = census.measure([checker])
        checker.things = {"a": 1}
        verdict = census.compare([checker], before, grace=30.0)
        assert verdict.leaks == []
        assert 0.006 < verdict.waited < 5.0  # at least 1 + 2 + 4 milliseconds

    def test_garbage_is_collected_first(self) -> None:
        checker = Toy()
        before = census.measure([checker])
        checker.things = things = {"a": 1}

        class Ring:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                things.clear()

        gc.disable()
        try:
            Ring()
            assert census.compare([checker], before, grace=0.0).leaks == []
        finally:
            gc.enable()

    def test_what_cannot_settle_is_not_waited_for(self) -> None:
        checker = ToyOfValues()
        before = census.measure([checker])
        checker.things = {"a": 1}
        started = time.monotonic()
        assert census.compare([checker], before, grace=30.0).leaks
        assert time.monotonic() - started < 5.0

    def test_only_who_leaks_is_asked_again(self) -> None:
        leaking, clean = Toy(), ToyOfValues()
        clean.name = "clean"  # type: ignore[misc]
        before = census.measure([leaking, clean])
        leaking.things = {"a": 1}
        census.compare([leaking, clean], before, grace=0.05)
        assert clean.measured == 2
        assert leaking.measured > 3

    def test_ignored_leak_is_neither_told_nor_waited_for(self) -> None:
        checker = Toy()
        before = census.measure([checker])
        checker.things = {"a": 1}
        verdict = census.compare([checker], before, 30.0, ignore=lambda leak: leak.key == "a")
        assert verdict.leaks == []
        assert verdict.waited == 0.0

    @pytest.mark.parametrize("side", ["before", "after"])
    def test_what_could_not_be_told_is_not_judged(self, side: str) -> None:
        checker = Toy(a=1)
        checker.things = None if side == "before" else {}
        before = census.measure([checker])
        checker.things = None if side == "after" else {"a": 1}
        assert census.compare([checker], before, 0.0).leaks == []

    def test_checker_that_joined_later_is_not_judged(self) -> None:
        assert census.compare([Toy(a=1)], census.measure([]), 0.0).leaks == []

    def test_since_says_how_long_ago_the_census_before_was(self) -> None:
        checker = Toy()
        before = census.measure([checker])
        checker.things = {"a": 1}
        (leak,) = census.compare([checker], before, 0.0).leaks
        assert re.fullmatch(r"within the last \d\.\d\d s", leak.since)


class TestAccounts:
    """What a wider fixture made belongs to the fixture, not to the test that asked for it first."""

    @pytest.fixture
    def checker(self) -> ToyOfValues:
        return ToyOfValues(kept=1, changed=1, removed=1)

    def test_delta(self, checker: ToyOfValues) -> None:
        before = census.measure([checker])
        checker.things = {"kept": 1, "changed": 2, "added": 3}
        assert census.delta(before, census.measure([checker])) == {
            "toy": {"changed": (1, 2), "added": (MISSING, 3), "removed": (1, MISSING)}
        }

    def test_fixtures_part_is_taken_out_and_given_back(self, checker: ToyOfValues) -> None:
        before = census.measure([checker])
        after_fixture = {"kept": 1, "changed": 2, "added": 3}
        checker.things = dict(after_fixture.items())
        part = census.delta(before, census.measure([checker]))

        account = census.merged(before, part)
        assert account.snapshots["toy"] == after_fixture
        assert census.compare([checker], account, 0.0).leaks == []

        # The last test that sees it: the fixture puts back all but one thing.
        checker.things = {"kept": 1, "changed": 1, "removed": 1, "added": 3}
        leaks = census.compare([checker], census.reverted(account, part), 0.0).leaks
        assert [leak.key for leak in leaks] == ["added"]
        assert census.reverted(account, part).snapshots == before.snapshots

    def test_neither_changes_what_it_was_given(self, checker: ToyOfValues) -> None:
        before = census.measure([checker])
        kept = dict((before.snapshots["toy"] or {}).items())
        census.merged(before, {"toy": {"added": (MISSING, 1), "kept": (1, MISSING)}})
        census.reverted(before, {"toy": {"kept": (MISSING, 1)}})
        assert before.snapshots["toy"] == kept

    def test_what_could_not_be_told_stays_so(self, checker: ToyOfValues) -> None:
        before = census.measure([checker])
        checker.things = None
        unknown = census.measure([checker])
        assert census.delta(before, unknown) == census.delta(unknown, before) == {}
        assert census.merged(unknown, {"toy": {"a": (MISSING, 1)}}).snapshots == {"toy": None}

    def test_changes_are_told_in_order(self) -> None:
        found = list(changes({"a": 1, "b": 1, "c": 1}, {"d": 1, "b": 2, "a": 1}))
        assert found == [("d", MISSING, 1), ("b", 1, 2), ("c", 1, MISSING)]


class TestRestore:
    def test_each_gets_its_own(self) -> None:
        class Restoring(Toy):
            def restore(self, leaks: Sequence[Leak]) -> None:
                keys: list[Hashable] = [leak.key for leak in leaks]
                self.things = {"restored": keys}

        one, other = Restoring(), Restoring()
        other.name = "other"  # type: ignore[misc]
        census.restore([one, other], [Leak("toy", "a", "", ""), Leak("nobody", "b", "", "")])
        assert one.things == {"restored": ["a"]}
        assert other.things == {}

    def test_error_in_one_does_not_stop_the_others(self) -> None:
        class Broken(Toy):
            def restore(self, leaks: Sequence[Leak]) -> None:
                raise ValueError("not today")

        class Second(Toy):
            name: ClassVar[str] = "second"

            def restore(self, leaks: Sequence[Leak]) -> None:
                self.things = None

        second = Second()
        errors = census.restore([Broken(), second], [Leak("toy", "a", "", ""), Leak("second", "b", "", "")])
        assert errors == ["leak checker 'toy' could not put right a: restore() raised ValueError: not today"]
        assert second.things is None


class TestBuiltin:
    def test_names(self) -> None:
        names = [checker.name for checker in census.builtin_checkers(Owned())]
        assert len(names) == len(set(names))
        assert all(name == name.lower() for name in names)
        # Pools first: closing one ends its processes and threads, and closes its descriptors, in good order.
        assert names[:4] == ["pools", "processes", "threads", "fds"]

    def test_quiet_test_leaves_nothing(self) -> None:
        checkers = census.builtin_checkers(Owned(), restored_by_pytest=False, report_counter_growth=True)
        before = census.measure(checkers)
        assert census.compare(checkers, before, 0.0).leaks == []

    def test_several_at_once_are_all_told_and_all_put_right(self, tmp_path: Any) -> None:
        checkers = census.builtin_checkers(Owned())
        home = os.getcwd()
        before = census.measure(checkers)
        os.environ["COMPILEPOOL_TEST_PLANTED"] = "1"
        os.chdir(tmp_path)
        os.open(tmp_path / "planted", os.O_CREAT)
        verdict = census.compare(checkers, before, 0.05)
        assert [leak.checker for leak in verdict.leaks] == ["fds", "environ", "cwd"]
        assert verdict.grace == 0.05
        census.restore(checkers, verdict.leaks)
        assert census.compare(checkers, before, 0.0).leaks == []
        assert os.getcwd() == home

    @pytest.mark.parametrize(
        "checker", [c for c in census.builtin_checkers(Owned()) if c.cheap], ids=lambda checker: checker.name
    )
    def test_cheap_ones_are_cheap(self, checker: LeakChecker) -> None:
        """Not a timed test: a generous bound that only a checker of another order of magnitude breaks."""
        times = []
        for _ in range(50):
            started = time.perf_counter()
            checker.measure()
            times.append(time.perf_counter() - started)
        assert min(times) < 0.001
