# SPDX-License-Identifier: Apache-2.0
"""Processes that somebody still holds, and innocent ones: they stay."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest
from planting import SLEEP, forgotten, is_zombie, orphan, state

from pytest_compilepool import proctree
from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.processes import (
    ProcessChecker,
)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="plants processes with Linux means"
)

STARTS_AND_ENDS = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]).pid)"
# 15 is PR_SET_NAME.
ENDS_AFTER_ITS_PARENT = (
    "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0); sys.stdin.read()"
)


Wait = Callable[[Callable[[], object]], None]


class TestHeld:
    """Reported, but not ended: somebody still has the object that stands for the process."""

    def test_server_of_a_fixture(self, account: Any) -> None:
        def fixture() -> Iterator[subprocess.Popen[bytes]]:
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
                yield server

        own = account(ProcessChecker(Owned()))
        generator = fixture()
        pid = next(generator).pid
        _, text = own.leak("cat")
        assert f"pid {pid}" in text
        assert "it is not ended: somebody still has the Popen that stands for it" in text
        own.restore()
        assert state(pid) == "S"
        assert next(generator, None) is None  # its end: the pipe is closed, and the server ends of itself
        own.assert_clean(0.0)

    def test_variable_of_a_running_function(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        with subprocess.Popen(SLEEP) as child:
            assert "it is not ended" in own.leak()[1]
            own.restore()
            assert child.poll() is None
            child.kill()

    def test_what_is_below_it_stays_too(self, account: Any, wait_until: Wait) -> None:
        own = account(ProcessChecker(Owned()))
        with subprocess.Popen(["sh", "-c", "sleep 60; true"]) as child:
            wait_until(lambda: len(own.leaks()) == 2)
            leak, text = own.leak("sleep")
            assert f"it is not ended: it is below pid {child.pid}, which somebody still uses" in text
            own.restore()
            assert state(leak.handle[0].pid) == "S"
            os.kill(leak.handle[0].pid, signal.SIGKILL)
        own.assert_clean(0.0)

    def test_only_the_held_one_of_two(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        pid = forgotten(SLEEP)
        with subprocess.Popen(SLEEP) as child:
            own.restore()
            assert [leak.handle[0].pid for leak in own.leaks()] == [child.pid]
            assert proctree.lookup(pid) is None
            child.kill()

    def test_zombie_is_left_to_its_object(self, account: Any, wait_until: Wait) -> None:
        # Whoever waits for it in a way of their own, as asyncio does, must find it.
        own = account(ProcessChecker(Owned()))
        child = subprocess.Popen(["sh", "-c", "exit 7"])
        wait_until(lambda: is_zombie(child.pid))
        own.restore()
        assert child.returncode is None
        assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 7
        child.wait()

    def test_executor(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            assert executor.submit(os.getppid).result(30.0) == os.getpid()
            assert all("somebody still has the SpawnProcess" in own.checker.format(x) for x in own.leaks())
            own.restore()
            assert executor.submit(os.getppid).result(30.0) == os.getpid()
        own.assert_clean()

    def test_owner_that_has_let_go_since(self, account: Any) -> None:
        # As a pool that is closed between the report and the restoring.
        own = account(ProcessChecker(Owned()))
        child = subprocess.Popen(SLEEP)
        leak, text = own.leak()
        assert "it is not ended" in text
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del child
        own.checker.restore([leak])
        own.assert_clean(0.0)


class TestInnocent:
    def test_child_that_was_waited_for(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        subprocess.run(["true"], check=True)
        assert own.leaks() == []

    def test_child_that_ends_within_the_grace(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        child = subprocess.Popen(["sleep", "0.1"])
        waiter = threading.Thread(target=child.wait)
        waiter.start()
        verdict = own.verdict(grace=5.0)
        waiter.join()
        assert verdict.leaks == []
        assert verdict.waited < 5.0

    def test_child_of_before(self, account: Any) -> None:
        with subprocess.Popen(SLEEP) as child:
            own = account(ProcessChecker(Owned()))
            assert own.leaks() == []
            child.kill()

    def test_owned_process_and_all_below_it(self, account: Any, wait_until: Wait) -> None:
        pids: set[int] = set()
        own = account(ProcessChecker(Owned(processes=lambda: pids)))
        with subprocess.Popen(["sh", "-c", "sleep 60; true"]) as child:
            wait_until(lambda: len(own.leaks()) == 2)
            tree = [leak.handle[0] for leak in own.leaks()]
            pids.add(child.pid)
            assert own.leaks() == []
            for key in tree:
                os.kill(key.pid, signal.SIGKILL)

        def gone(pid: int) -> bool:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # a dead parent's child comes to this process, a subreaper
            return not psutil.pid_exists(pid)

        wait_until(lambda: all(gone(key.pid) for key in tree))

    def test_resource_tracker_of_multiprocessing(self, account: Any) -> None:
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        own = account(ProcessChecker(Owned()))
        resource_tracker.ensure_running()
        tracker = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
        assert tracker in {row.pid for row in proctree.descendants(os.getpid())}
        assert own.leaks() == []

    def test_fork_server_of_multiprocessing(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        child = multiprocessing.get_context("forkserver").Process(target=os.getpid)
        child.start()
        child.join()
        child.close()
        own.assert_clean()

    def test_resource_tracker_of_a_child_of_ours(self, account: Any) -> None:
        # Known by its command line only: nobody here has its pid.
        own = account(ProcessChecker(Owned()))
        code = (
            "import sys; from multiprocessing import resource_tracker as r; r.ensure_running();"
            "print(r._resource_tracker._pid, flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            tracker = int(child.stdout.readline())
            assert [leak.handle[0].pid for leak in own.leaks()] == [child.pid]
            assert tracker != child.pid
            child.communicate()
        own.assert_clean()

    @pytest.mark.usefixtures("adopting")
    def test_adopted_orphan_that_has_ended(self, account: Any, wait_until: Wait) -> None:
        # It is our zombie only because we adopt: nobody here could have waited for it.
        own = account(ProcessChecker(Owned()))
        pid = orphan("sleep 0.05")
        wait_until(lambda: is_zombie(pid))
        assert own.leaks() == []
        os.waitpid(pid, 0)

    @pytest.mark.usefixtures("adopting")
    def test_adopted_orphan_of_our_name_that_has_ended(self, account: Any, wait_until: Wait) -> None:
        # As the worker of a pool whose sidecar is an interpreter like this one: its name and session are ours, too.
        own = account(ProcessChecker(Owned()))
        name = Path("/proc/self/comm").read_text().strip()
        starts = [sys.executable, "-c", STARTS_AND_ENDS, ENDS_AFTER_ITS_PARENT, name]
        with subprocess.Popen(starts, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as middle:
            assert middle.stdout is not None
            pid = int(middle.stdout.readline())
            middle.wait(60)
            assert middle.stdin is not None
            middle.stdin.close()
            wait_until(lambda: is_zombie(pid))
        row = proctree.lookup(pid)
        assert row is not None
        assert row.name == name
        assert own.leaks() == []
        os.waitpid(pid, 0)

    @pytest.mark.usefixtures("adopting")
    def test_adopted_zombie_that_was_seen_below_another_is_waited_for(
        self, account: Any, wait_until: Wait
    ) -> None:
        own = account(ProcessChecker(Owned()))
        with subprocess.Popen(["sh", "-c", "sleep 60; true"]) as shell:
            wait_until(lambda: len(own.leaks()) == 2)
            sleeper = own.leak("sleep")[0].handle[0]
            shell.kill()
            shell.wait()
            os.kill(sleeper.pid, signal.SIGKILL)
            wait_until(lambda: is_zombie(sleeper.pid))
        assert sleeper not in own.checker.measure()
        assert proctree.lookup(sleeper.pid) is None

    @pytest.mark.usefixtures("not_adopting")
    def test_stray_of_another_session(self, account: Any) -> None:
        own = account(ProcessChecker(Owned(tag="planted-3")))
        pid = orphan("sleep 60", **{proctree.TAG: "somebody-else"})
        assert own.leaks() == []
        os.kill(pid, signal.SIGKILL)
