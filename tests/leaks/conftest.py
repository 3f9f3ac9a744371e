# SPDX-License-Identifier: Apache-2.0
"""What all leak tests share: an account to plant leaks in, and a guard that a test cleans up after itself."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import pytest

from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import LeakChecker
from pytest_compilepool.leaks.processes import adopt_orphans, is_adopting, stop_adopting
from pytest_compilepool.records import Leak

GRACE = 5.0  # seconds: a bound for what is expected to happen, not a pause


class Account:
    """One checker and the census before: what is planted after this was made is to be found."""

    def __init__(self, checker: LeakChecker) -> None:
        self.checker = checker
        self.before = census.measure([checker])

    def verdict(self, grace: float = 0.0) -> census.Verdict:
        verdict = census.compare([self.checker], self.before, grace)
        assert not verdict.errors
        return verdict

    def leaks(self) -> list[Leak]:
        """What is there now, without any grace."""
        return self.verdict().leaks

    def leak(self, key: str | None = None) -> tuple[Leak, str]:
        """The one leak (of that key), and its text."""
        leaks = [leak for leak in self.leaks() if key in (None, leak.key)]
        assert len(leaks) == 1, leaks
        return leaks[0], self.checker.format(leaks[0])

    def restore(self) -> None:
        assert census.restore([self.checker], self.leaks()) == []

    def assert_clean(self, grace: float = GRACE) -> None:
        leaks = self.verdict(grace).leaks
        assert not leaks, "\n".join(self.checker.format(leak) for leak in leaks)


@pytest.fixture
def account() -> type[Account]:
    return Account


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + GRACE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.002)

    return wait


@pytest.fixture
def fork() -> Callable[[Callable[[], object]], int]:
    """Fork; the child runs the function and leaves by `os._exit`. Returns the child's pid."""

    def do(function: Callable[[], object]) -> int:
        with warnings.catch_warnings():
            # From 3.12 on a fork beside threads warns: the child calls nothing that could wait for them.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                function()
            finally:
                os._exit(0)
        return pid

    return do


@pytest.fixture
def adopting() -> Iterator[None]:
    previous = adopt_orphans()
    yield
    stop_adopting(previous)


@pytest.fixture(params=[True, False], ids=["adopting", "not adopting"])
def adoption(request: pytest.FixtureRequest) -> Iterator[bool]:
    previous = is_adopting()
    stop_adopting(request.param)
    yield request.param
    stop_adopting(previous)


@pytest.fixture
def not_adopting() -> Iterator[None]:
    previous = is_adopting()
    stop_adopting(False)
    yield
    stop_adopting(previous)


@pytest.fixture(scope="session")
def inductor() -> Any:
    """torch with Inductor loaded, without the variables that loading it writes."""
    pytest.importorskip("torch")
    before = dict(os.environ)
    module = importlib.import_module("torch._inductor.async_compile")
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    return module


@pytest.fixture
def torch_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch writes into the environment during the test is undone."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "remembered")
        monkeypatch.delenv(name)


def _helpers() -> tuple[set[int], set[int]]:
    """pids and descriptors of multiprocessing's helpers: they stay for the life of this process."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    pids = {getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)}
    fds = {getattr(tracker, "_fd", None), getattr(server, "_forkserver_alive_fd", None)}
    return {pid for pid in pids if pid}, {fd for fd in fds if fd}


def _around() -> dict[str, Any]:
    pids, fds = _helpers()
    return {
        "processes": {p.pid for p in psutil.Process().children(recursive=True) if _runs(p)} - pids,
        "threads": {t.ident: t.name for t in threading.enumerate() if not t.name.startswith("Dummy-")},
        "fds": None if _cuda_started() else {f for f in map(int, os.listdir("/dev/fd")) if _is_open(f)} - fds,
        "environ": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "cwd": os.getcwd(),
        "handlers": [signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)],
    }


def _runs(process: psutil.Process) -> bool:
    """Zombies of other sessions come here when those end, whenever that is; the plugin around this one judges ours."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _cuda_started() -> bool:
    """Whether this process uses CUDA: its driver keeps what it opens, then."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Sequence[str]:
    # What ends meanwhile was an earlier test's: the watcher of its pool, orphans that nobody had waited for.
    ended = before["threads"].keys() - after["threads"].keys()
    threads = {k: v for k, v in before["threads"].items() if k not in ended}
    before = {**before, "threads": threads, "processes": before["processes"] & after["processes"]}
    told = [name for name in before if None not in (before[name], after[name])]
    return [f"{name}: {before[name]} -> {after[name]}" for name in told if before[name] != after[name]]


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Written without the code under test, so that it can be wrong in other ways only."""
    before = _around()
    yield
    deadline = time.monotonic() + GRACE
    while (left := _differences(before, _around())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left
