# SPDX-License-Identifier: Apache-2.0
"""The small jobs: each does what it says, here and inside a real worker."""

from __future__ import annotations

import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.workloads import jobs

JOBS = [job for _, job in inspect.getmembers(jobs, inspect.isfunction) if job.__module__ == jobs.__name__]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_every_job_pickles_by_name(job: Callable[..., Any]) -> None:
    assert pickle.loads(pickle.dumps(job)) is job


def test_whoami_names_a_process_that_runs(call: Any) -> None:
    pid, parent, started = call(jobs.whoami)
    assert proctree.alive(ProcessKey(pid, started))
    row = proctree.lookup(pid)
    assert row is not None
    assert row.parent == parent


def test_whoami_tells_a_worker_from_here(worker: Any) -> None:
    pid, parent, _ = worker.call(jobs.whoami)
    assert len({pid, parent, worker.parent, os.getpid()}) == 4
    sidecar = proctree.lookup(parent)
    assert sidecar is not None
    assert sidecar.parent == worker.parent


def test_add_and_echo(call: Any) -> None:
    assert call(jobs.add, 2, 3) == 5
    assert call(jobs.echo, {"a": [1, (2.5, None)], "b": b"\0x"}) == {"a": [1, (2.5, None)], "b": b"\0x"}


@pytest.mark.parametrize("nbytes", [0, 1, 251, 252, 3_000_000])
def test_big_is_as_big_as_it_says(call: Any, nbytes: int) -> None:
    data = call(jobs.big, nbytes)
    assert len(data) == nbytes
    assert b"\0" not in data


def test_environment(call: Any, tmp_path: Path) -> None:
    told = call(jobs.environment, ["PATH", "COMPILEPOOL_NO_SUCH_NAME"])
    assert told == {"PATH": os.environ["PATH"], "COMPILEPOOL_NO_SUCH_NAME": None}


def test_module_names(call: Any) -> None:
    names = call(jobs.module_names)
    assert names == sorted(names)
    assert {"os", "sys", jobs.__name__} <= set(names)


def test_a_worker_has_imported_torch(worker: Any) -> None:
    assert "torch" in worker.call(jobs.module_names)


def test_touch_brings_the_file_with_its_text(call: Any, tmp_path: Path) -> None:
    call(jobs.touch, str(tmp_path / "flag"), "ready")
    assert (tmp_path / "flag").read_text() == "ready"
    assert [path.name for path in tmp_path.iterdir()] == ["flag"]


def test_sleep_after_touch_has_touched_before_it_sleeps(worker: Any, tmp_path: Path) -> None:
    flag = tmp_path / "started"
    number = worker.submit(jobs.sleep_after_touch, str(flag), 0.5)
    jobs.wait_for(str(flag), 30)
    with pytest.raises(Exception, match="TimeoutError"):
        worker.result(number, 0.05)
    assert worker.result(number) == int(flag.read_text())


def test_wait_for_returns_once_the_file_is_there(call: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    later = threading.Timer(0.1, flag.touch)
    later.start()
    took = call(jobs.wait_for, str(flag), 30.0)
    later.join()
    assert flag.exists()
    assert 0 <= took < 30


def test_wait_for_gives_up(call: Any, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no file '.*flag' appeared within 0\.05 s"):
        call(jobs.wait_for, str(tmp_path / "flag"), 0.05)


def test_fail_fails_and_the_worker_goes_on(worker: Any) -> None:
    with pytest.raises(ValueError, match=r"^so it does$"):
        jobs.fail("so it does")
    before = worker.call(jobs.whoami)
    with pytest.raises(Exception, match=r"(?s)SubprocException.*ValueError: so it does") as caught:
        worker.call(jobs.fail, "so it does")
    assert "fail" in str(caught.value)
    assert worker.call(jobs.whoami) == before


def test_raise_system_exit() -> None:
    with pytest.raises(SystemExit) as caught:
        jobs.raise_system_exit(7)
    assert caught.value.code == 7


def run(cwd: Path, text: str, *args: str) -> subprocess.Popen[bytes]:
    """Another interpreter that runs one statement, in which `jobs` are imported.

    cwd: not the source folder, where the package would be found before the one that is installed.
    """
    script = f"import sys; from pytest_compilepool.workloads import jobs; {text}"
    return subprocess.Popen([sys.executable, "-c", script, *args], cwd=cwd)


@pytest.mark.parametrize(("text", "status"), [("jobs.exit_process(9)", 9), ("jobs.kill_self(9)", -9)])
def test_what_ends_a_process(text: str, status: int, tmp_path: Path) -> None:
    assert run(tmp_path, text).wait(30) == status


@pytest.mark.parametrize(("job", "argument"), [(jobs.exit_process, 9), (jobs.kill_self, 9)])
def test_what_ends_a_worker(worker: Any, job: Any, argument: int) -> None:
    before = worker.call(jobs.whoami)
    with pytest.raises(Exception, match="BrokenProcessPool"):
        worker.call(job, argument)
    after = worker.call(jobs.whoami)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_kill_self_says_so_if_the_signal_was_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    with pytest.raises(RuntimeError, match=rf"signal 0 did not end pid {os.getpid()}"):
        jobs.kill_self(0)


def test_ignoring_sigterm_only_sigkill_ends_it(tmp_path: Path) -> None:
    flag = tmp_path / "started"
    process = run(tmp_path, "jobs.ignore_sigterm_and_wait(sys.argv[1])", str(flag))
    try:
        jobs.wait_for(str(flag), 30)
        assert int(flag.read_text()) == process.pid
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_ignoring_sigterm_leaves_the_handler_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert jobs.ignore_sigterm_and_wait(str(tmp_path / "flag"), 0.0) == os.getpid()
    assert signal.getsignal(signal.SIGTERM) is before


def test_ignoring_sigterm_works_in_a_worker(worker: Any, tmp_path: Path) -> None:
    pid = worker.call(jobs.ignore_sigterm_and_wait, str(tmp_path / "flag"), 0.0)
    assert pid == worker.call(jobs.whoami)[0]


def test_spawn_grandchild_leaves_a_process_behind(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    here, _, _ = call(jobs.whoami)
    pid = call(jobs.spawn_grandchild, str(path), 60.0)
    row = proctree.lookup(pid)
    try:
        assert int(path.read_text()) == pid
        assert row is not None
        assert row.parent == here
        assert not row.dead
    finally:
        os.kill(pid, signal.SIGTERM)
        if here == os.getpid():
            os.waitpid(pid, 0)
