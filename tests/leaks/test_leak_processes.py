# SPDX-License-Identifier: Apache-2.0
"""Processes that are leaks: real ones, planted."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planting import SLEEP, forgotten, fork_twice, is_zombie, orphan, state

from pytest_compilepool import proctree
from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.processes import (
    ProcessChecker,
    adopt_orphans,
    is_adopting,
    stop_adopting,
)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="plants processes with Linux means"
)

Wait = Callable[[Callable[[], object]], None]
Fork = Callable[[Callable[[], object]], int]


class TestPlanted:
    def test_child_is_found_named_and_ended(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        pid = forgotten(SLEEP)
        leak, text = own.leak("sleep")
        assert f"pid {pid}" in text
        assert "it is not ended" not in text
        assert "sleep 60" in text
        assert "child of this process" in text
        assert "it started 0." in leak.since
        assert 'allow=["processes:sleep"]' in text
        own.restore()
        own.assert_clean(0.0)

    def test_grandchild_goes_with_its_parent(self, account: Any, wait_until: Wait) -> None:
        own = account(ProcessChecker(Owned()))
        pid = forgotten(["sh", "-c", "sleep 60; true"])
        wait_until(lambda: len(own.leaks()) == 2)
        assert {leak.key for leak in own.leaks()} == {"sh", "sleep"}
        assert f"child of pid {pid} (sh)" in own.leak("sleep")[1]
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.usefixtures("adopting")
    def test_orphan_is_seen_once_adopted(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        pid = orphan("sleep 60")
        leak, text = own.leak()
        assert leak.handle[0].pid == pid
        assert "sleep 60" in text
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.usefixtures("adopting")
    def test_forked_twice_without_exec(self, account: Any, fork: Fork) -> None:
        own = account(ProcessChecker(Owned()))
        pid = fork_twice(fork, lambda: time.sleep(60))
        leak, _ = own.leak()
        assert leak.handle[0].pid == pid
        own.restore()
        own.assert_clean(0.0)

    def test_zombie_with_popen(self, account: Any, wait_until: Wait, adoption: bool) -> None:
        own = account(ProcessChecker(Owned()))
        pid = forgotten(SLEEP)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_zombie(pid))
        leak, text = own.leak()
        assert "zombie" in leak.after
        assert "nobody has waited" in text
        own.restore()
        own.assert_clean(0.0)

    def test_zombie_of_a_plain_fork(self, account: Any, fork: Fork, wait_until: Wait, adoption: bool) -> None:
        own = account(ProcessChecker(Owned()))
        pid = fork(lambda: None)
        wait_until(lambda: is_zombie(pid))
        assert "zombie" in own.leak()[0].after
        own.restore()
        own.assert_clean(0.0)
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)

    def test_multiprocessing_child(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))

        def start() -> int | None:
            child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
            child.start()
            return child.pid

        assert f"pid {start()}" in own.leak()[1]
        own.restore()
        own.assert_clean(0.0)
        # It is forgotten with its pipes, as multiprocessing does whenever it is asked.
        assert multiprocessing.active_children() == []

    def test_stopped_process(self, account: Any, wait_until: Wait) -> None:
        own = account(ProcessChecker(Owned()))
        pid = forgotten(SLEEP)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: state(pid) == "T")
        assert "stopped" in own.leak()[0].after
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.usefixtures("not_adopting")
    def test_stray_with_the_tag(self, account: Any) -> None:
        own = account(ProcessChecker(Owned(tag="planted-1")))
        pid = orphan("sleep 60", **{proctree.TAG: "planted-1"})
        assert pid not in {row.pid for row in proctree.descendants(os.getpid())}
        assert own.leak()[0].handle[0].pid == pid
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.usefixtures("not_adopting")
    def test_stray_that_names_this_process_as_parent(self, account: Any) -> None:
        own = account(ProcessChecker(Owned()))
        code = "import time; time.sleep(60)"
        pid = orphan(f"{sys.executable} -c '{code}' --parent={os.getpid()}")
        _found_within(own, pid)
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.usefixtures("not_adopting")
    def test_stray_that_was_a_stranger_until_it_exec_d(self, account: Any, tmp_path: Path) -> None:
        # Read before its exec it carries no mark: that it was read must not be remembered over the exec.
        own = account(ProcessChecker(Owned(tag="planted-2")))
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        pid = orphan(f"sh -c 'read line < {gate}; {proctree.TAG}=planted-2 exec sleep 60'")
        assert own.leaks() == []
        gate.write_text("go\n")
        _found_within(own, pid)
        own.restore()
        own.assert_clean(0.0)

    def test_sidecar_and_worker_are_told_apart(self, account: Any, tmp_path: Path, wait_until: Wait) -> None:
        # Same command lines as Inductor's: a script that forks.
        script = tmp_path / "compile_worker" / "__main__.py"
        script.parent.mkdir()
        script.write_text("import os, time\nos.fork()\ntime.sleep(60)\n")
        own = account(ProcessChecker(Owned()))
        pid = forgotten([sys.executable, str(script), f"--parent={os.getpid()}"])
        wait_until(lambda: len(own.leaks()) == 2)
        assert f"sidecar pid {pid}" in own.leak("sidecar")[1]
        assert f"child of pid {pid}" in own.leak("worker")[1]
        own.restore()
        own.assert_clean(0.0)


def _found_within(own: Any, pid: int) -> None:
    deadline = time.monotonic() + 5.0
    while [leak.handle[0].pid for leak in own.leaks()] != [pid]:
        assert time.monotonic() < deadline, own.leaks()
        time.sleep(0.005)


class TestAdoption:
    def test_setting_is_put_back(self) -> None:
        previous = adopt_orphans()
        assert is_adopting()
        assert adopt_orphans() is True
        stop_adopting(previous)
        assert is_adopting() is previous

    def test_kernel_agrees(self) -> None:
        previous = adopt_orphans()
        answer = ctypes.c_int(0)
        ctypes.CDLL(None).prctl(37, ctypes.byref(answer), 0, 0, 0)
        stop_adopting(previous)
        assert answer.value == 1


@pytest.mark.usefixtures("not_adopting")
def test_stranger_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = orphan("sleep 60", **{proctree.TAG: "somebody-else"})
    read: list[int] = []
    real = proctree.command
    monkeypatch.setattr(proctree, "command", lambda pid: read.append(pid) or real(pid))
    checker = ProcessChecker(Owned(tag="planted-4"))
    for _ in range(3):
        census.measure([checker])
    os.kill(pid, signal.SIGKILL)
    assert read.count(pid) == 1
