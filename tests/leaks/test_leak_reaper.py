# SPDX-License-Identifier: Apache-2.0
"""The reaper: bounded, hits only who is meant, robs nobody of an exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.leaks import reaper
from pytest_compilepool.records import ProcessKey

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and zombies are POSIX")

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(60)"
)


def key_of(pid: int) -> ProcessKey:
    row = proctree.lookup(pid)
    assert row is not None
    return row.key


def test_asks_first() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert reaper.reap([key_of(child.pid)]) == []
        assert child.returncode == -signal.SIGTERM


def test_kills_who_does_not_listen() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        started = time.monotonic()
        assert reaper.reap([key_of(child.pid)], terminate_grace=0.2) == []
        assert 0.2 <= time.monotonic() - started < 2.0
        assert child.returncode == -signal.SIGKILL


def test_takes_what_is_below(wait_until: Callable[[Callable[[], object]], None]) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60; true"]) as child:
        wait_until(lambda: proctree.descendants(child.pid))
        below = [row.key for row in proctree.descendants(child.pid)]
        assert reaper.reap([key_of(child.pid)]) == []
        assert not any(map(proctree.alive, below))


def test_takes_what_is_started_on_the_way_out() -> None:
    script = "trap 'sleep 60 & echo $!; wait' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert reaper.reap([key_of(child.pid)], terminate_grace=0.5) == []
        late = int(child.stdout.readline())
        row = proctree.lookup(late)
        assert row is None or row.dead


def test_says_who_survived() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        key = key_of(child.pid)
        # A signal that does nothing in place of SIGKILL: so a process that hangs in the kernel looks.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reaper, "_KILL", 0)
            assert reaper.reap([key], terminate_grace=0.05, kill_grace=0.05) == [key]
        assert proctree.alive(key)
        child.kill()


def test_another_process_of_the_same_pid_is_not_hit() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        key = key_of(child.pid)
        assert reaper.reap([ProcessKey(key.pid, key.started - 1.0)]) == []
        assert proctree.alive(key)
        child.kill()


def test_own_process_is_never_hit() -> None:
    assert reaper.reap([proctree.own_key()], terminate_grace=0.01, kill_grace=0.01) == []


def test_who_has_gone_is_no_error() -> None:
    with subprocess.Popen(["true"]) as child:
        key = ProcessKey(child.pid, 1.0)
    assert reaper.reap([key]) == []


def test_child_without_owner_is_waited_for(
    fork: Callable[[Callable[[], object]], int], wait_until: Callable[[Callable[[], object]], None]
) -> None:
    pid = fork(lambda: None)
    wait_until(lambda: key_of(pid) and not proctree.alive(key_of(pid)))
    reaper.collect([pid])
    assert proctree.lookup(pid) is None


def test_owner_keeps_the_exit_status(wait_until: Callable[[Callable[[], object]], None]) -> None:
    child = subprocess.Popen(["sh", "-c", "exit 3"])
    wait_until(lambda: not proctree.alive(key_of(child.pid)))
    reaper.collect([child.pid])
    assert child.returncode == 3


def test_living_child_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        reaper.collect([child.pid])
        assert child.poll() is None
        child.kill()
