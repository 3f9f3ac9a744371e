# SPDX-License-Identifier: Apache-2.0
"""What a census asks of the kernel, counted and not timed: one call a descriptor, one reading a process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.fds import FdChecker
from pytest_compilepool.leaks.processes import ProcessChecker
from pytest_compilepool.leaks.threads import ThreadChecker

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts readings of /proc")

COUNTED = ("fstat", "stat", "lstat", "readlink", "listdir", "scandir", "open", "read", "close")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Counter[str]]:
    """Counts calls of `os`: by name, and what is opened by its path."""

    def count(run: Callable[[], object]) -> Counter[str]:
        found: Counter[str] = Counter()

        def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:
                found[name] += 1
                if name == "open":
                    found[str(args[0])] += 1
                return real(*args, **named)

            return call

        with monkeypatch.context() as patch:
            for name in COUNTED:
                patch.setattr(os, name, counting(name, getattr(os, name)))
            run()
        return found

    return count


@contextlib.contextmanager
def descriptors(number: int) -> Iterator[list[int]]:
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(number // 2)]
    while len(opened) < number:
        opened += os.pipe()
    try:
        yield opened
    finally:
        for fd in opened:
            os.close(fd)


@contextlib.contextmanager
def children(number: int) -> Iterator[list[int]]:
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(number)]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


class TestDescriptors:
    def test_one_call_for_each_that_was_there(self, calls: Any) -> None:
        checker = FdChecker(Owned())
        with descriptors(100) as opened:
            checker.measure()
            found = calls(checker.measure)
            listed = len(os.listdir("/proc/self/fd"))
            assert set(opened) <= set(checker.measure() or ())
        assert found["fstat"] == listed
        assert found["listdir"] == 1
        # What has changed a moment ago, as a log file of pytest's may have, is asked for its name.
        assert found["readlink"] < 20
        assert sum(found.values()) == found["fstat"] + found["readlink"] + 1

    def test_twice_as_many_cost_twice_as_much(self, calls: Any) -> None:
        checker = FdChecker(Owned())
        counts = []
        for number in (0, 200, 400):
            with descriptors(number):
                checker.measure()
                counts.append(calls(checker.measure))
        assert [count["fstat"] - counts[0]["fstat"] for count in counts] == [0, 200, 400]
        assert max(count["readlink"] for count in counts) < 20

    def test_pipes_and_sockets_are_never_asked_for_their_names(self, calls: Any) -> None:
        checker = FdChecker(Owned())
        with contextlib.ExitStack() as ends:
            for number in (2, 100):  # the first two teach what such names are
                for fd in (end for _ in range(number) for end in os.pipe()):
                    ends.callback(os.close, fd)
                found = calls(checker.measure)
        assert found["readlink"] < 20


class TestProcesses:
    def test_each_is_read_once_by_whoever_asks(self, calls: Any) -> None:
        def owned() -> set[int]:
            return {row.pid for row in proctree.descendants(1) if row.name == "nobody's"}

        checkers = census.builtin_checkers(Owned(processes=owned, threads=owned, fds=owned, tag="planted"))
        with children(10) as pids:
            census.measure(checkers)
            found = calls(lambda: census.measure(checkers))
        readings = {path: number for path, number in found.items() if re.fullmatch(r"/proc/\d+/stat", path)}
        assert set(readings.values()) == {1}
        assert {f"/proc/{pid}/stat" for pid in pids} <= set(readings)
        # Fewer are read than opened where one has ended meanwhile.
        assert found["read"] == found["close"] <= found["open"] == len(readings)

    def test_twice_as_many_cost_twice_as_much(self, calls: Any) -> None:
        """Three calls a process. (Others come and go on this machine: only those below this process are counted.)"""
        checker = ProcessChecker(Owned(tag="planted"))
        for number in (5, 10):
            with children(number) as pids:
                checker.measure()
                found = calls(checker.measure)
            assert sum(found[f"/proc/{pid}/stat"] for pid in pids) == number
            assert not any(f"/proc/{pid}/cmdline" in found for pid in pids)

    def test_what_has_not_changed_is_the_same_object(self) -> None:
        with children(2) as pids:
            for pid in pids:  # Popen returns while they still load, running and waiting in turn
                os.kill(pid, signal.SIGSTOP)
                os.waitid(os.P_PID, pid, os.WSTOPPED)
            one, other = proctree.table(), proctree.table()
            assert all(one[pid] is other[pid] for pid in pids)
            assert one is not other

    def test_what_has_changed_is_told(self) -> None:
        with subprocess.Popen(["sleep", "600"]) as process:
            before = proctree.table()[process.pid]
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            after = proctree.table()[process.pid]
        assert (before.dead, after.dead) == (False, True)
        assert before.key == after.key

    def test_new_name_is_told(self) -> None:
        """Of this process, which is running whenever it looks."""
        mine, comm = os.getpid(), Path("/proc/self/comm")
        before = proctree.table()[mine]
        try:
            comm.write_text("planted")
            after = proctree.table()[mine]
        finally:
            comm.write_text(before.name)
        assert after.name == "planted"
        assert (after.key, after.state) == (before.key, before.state)


class TestOneReading:
    def test_it_is_of_one_moment_inside_and_of_now_outside(self) -> None:
        with proctree.one_reading():
            first = proctree.table()
            with proctree.one_reading(), children(1) as pids:
                assert pids[0] not in proctree.table()
                assert proctree.lookup(pids[0]) is not None
            assert proctree.table() == first
        with children(1) as pids:
            assert pids[0] in proctree.table()
            with proctree.one_reading():
                assert pids[0] in proctree.table()

    def test_it_is_of_one_thread(self) -> None:
        seen: list[dict[int, proctree.Proc]] = []
        with proctree.one_reading():
            proctree.table()
            with children(1) as pids:
                thread = threading.Thread(target=lambda: seen.append(proctree.table()))
                thread.start()
                thread.join()
        assert pids[0] in seen[0]

    def test_who_changes_what_was_handed_out_changes_no_others(self) -> None:
        with proctree.one_reading():
            proctree.table().clear()
            assert os.getpid() in proctree.table()

    def test_it_ends_with_an_error(self) -> None:
        with contextlib.suppress(RuntimeError), proctree.one_reading():
            proctree.table()
            raise RuntimeError
        with children(1) as pids:
            assert pids[0] in proctree.table()


def test_threads_cost_no_call_at_all(calls: Any) -> None:
    assert calls(ThreadChecker(Owned()).measure) == Counter()
