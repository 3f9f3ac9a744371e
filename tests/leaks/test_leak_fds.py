# SPDX-License-Identifier: Apache-2.0
"""File descriptors: real ones, planted and innocent."""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing.connection
import multiprocessing.heap
import os
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.fds import FdChecker, stable_target
from pytest_compilepool.leaks.opened import Open

pytestmark = pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no listing of open descriptors here")

linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names targets as /proc has them")

FOLDERS = ["/proc/self/fd", "/dev/fd"]


@pytest.fixture(params=FOLDERS)
def checker(request: pytest.FixtureRequest) -> FdChecker:
    if not os.path.isdir(request.param):
        pytest.skip(f"no {request.param} here")
    return FdChecker(Owned(), folder=request.param)


class TestPlanted:
    @linux
    def test_file_is_named(self, account: Any, tmp_path: Path) -> None:
        own = account(FdChecker(Owned()))
        fd = os.open(tmp_path / "planted.log", os.O_CREAT | os.O_RDWR)
        leak, text = own.leak(stable_target(str(tmp_path / "planted.log")))
        assert leak.before == "not open"
        assert f"fd {fd} -> {tmp_path}/planted.log" in text
        own.restore()
        own.assert_clean(0.0)

    def test_both_ends_of_a_pipe(self, account: Any, checker: FdChecker) -> None:
        own = account(checker)
        read, write = os.pipe()
        leaks = own.leaks()
        assert [leak.key for leak in leaks] == ["pipe", "pipe"]
        assert {f"fd {read} ", f"fd {write} "} == {leak.after.partition("->")[0] for leak in leaks}
        own.restore()
        own.assert_clean(0.0)

    @linux
    def test_pipe_to_a_child_names_the_child(self, account: Any) -> None:
        own = account(FdChecker(Owned()))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            assert f"the pipe is also held by pid {child.pid}" in own.leak("pipe")[1]
        own.assert_clean(0.0)

    @linux
    def test_pipe_that_no_child_holds_says_so(self, account: Any) -> None:
        own = account(FdChecker(Owned()))
        os.pipe()
        assert all("no child of this process holds the pipe" in leak.who for leak in own.leaks())
        own.restore()

    def test_number_that_is_another_file_now(self, account: Any, checker: FdChecker, tmp_path: Path) -> None:
        fd = os.open(tmp_path / "old", os.O_CREAT)
        own = account(checker)
        # The old file stays on disk, so its inode is not given to the new one.
        other = os.open(tmp_path / "new", os.O_CREAT)
        os.dup2(other, fd)
        os.close(other)
        leak, _ = own.leak()
        assert leak.before.startswith(f"fd {fd} -> ")
        own.restore()
        own.assert_clean(0.0)
        assert not _is_open(fd)

    def test_what_has_become_another_file_is_not_closed(
        self, account: Any, checker: FdChecker, tmp_path: Path
    ) -> None:
        own = account(checker)
        fd = os.open(tmp_path / "planted", os.O_CREAT)
        leak, _ = own.leak()
        other = os.open(tmp_path / "innocent", os.O_CREAT)
        os.dup2(other, fd)
        os.close(other)
        checker.restore([leak])
        assert _is_open(fd)
        os.close(fd)


class TestHeld:
    """Reported, but left open: somebody may still be using it, and would close the number a second time."""

    def test_python_file(self, account: Any, checker: FdChecker, tmp_path: Path) -> None:
        own = account(checker)
        with open(tmp_path / "planted.txt", "w") as file:
            file.write("one ")
            assert "it stays open: a TextIOWrapper holds it" in own.leak()[1]
            own.restore()
            file.write("two")
        assert (tmp_path / "planted.txt").read_text() == "one two"
        own.assert_clean(0.0)

    def test_only_the_held_one_of_two(self, account: Any, checker: FdChecker, tmp_path: Path) -> None:
        own = account(checker)
        raw = os.open(tmp_path / "raw", os.O_CREAT)
        with open(tmp_path / "held", "wb", buffering=0) as file:
            own.restore()
            assert not _is_open(raw)
            leak, text = own.leak()
            assert leak.after.startswith(f"fd {file.fileno()} ")
            assert "a FileIO holds it" in text

    def test_socket(self, account: Any, checker: FdChecker) -> None:
        own = account(checker)
        one, other = socket.socketpair()
        with one, other:
            assert all("a socket holds it" in checker.format(leak) for leak in own.leaks())
            own.restore()
            one.sendall(b"still there")
            assert other.recv(20) == b"still there"
        own.assert_clean(0.0)

    def test_nameless_one_that_no_python_object_holds(self, account: Any, checker: FdChecker) -> None:
        own = account(checker)
        fd = socket.socket().detach()
        leak, text = own.leak()
        assert leak.key == "socket"
        assert "it stays open: no Python object holds it, but a C library may" in text
        own.restore()
        os.close(fd)

    @linux
    def test_event_poll(self, account: Any) -> None:
        own = account(FdChecker(Owned()))
        with select.epoll() as poll:
            own.leak("eventpoll")
            own.restore()
            assert poll.poll(timeout=0) == []

    @linux
    @pytest.mark.parametrize("kind", ["memory in /dev/shm", "file"])
    def test_file_mapped_into_memory(self, account: Any, tmp_path: Path, kind: str) -> None:
        # Both keep the number of a descriptor that no object shows.
        own = account(FdChecker(Owned()))
        if kind == "file":
            (tmp_path / "mapped").write_bytes(bytes(4096))
            with open(tmp_path / "mapped", "r+b") as file:
                mapped = mmap.mmap(file.fileno(), 0)
            close: list[Callable[[], object]] = [mapped.close]
        else:
            memory = shared_memory.SharedMemory(create=True, size=4096)
            close = [memory.close, memory.unlink]
        leaks = own.leaks()
        assert leaks
        assert all("mapped into memory" in own.checker.format(leak) for leak in leaks)
        own.restore()
        assert len(own.leaks()) == len(leaks)
        for function in close:
            function()
        own.assert_clean(0.0)

    @linux
    def test_database(self, account: Any, tmp_path: Path) -> None:
        checker = FdChecker(Owned())
        path = tmp_path / "data.db"
        with contextlib.closing(sqlite3.connect(path)) as first:
            first.execute("create table t (n)")
        own = account(checker)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("insert into t values (1)")
            leaks = own.leaks()
            assert len(leaks) >= 2  # the database and its journal
            assert all("sqlite may be using it" in checker.format(leak) for leak in leaks)
            own.restore()
            connection.commit()
            assert connection.execute("select n from t").fetchall() == [(1,)]
        own.assert_clean(0.0)

    def test_sentinel_of_a_process(self, account: Any, checker: FdChecker) -> None:
        # A plain number in an executor's worker: closing it breaks the executor.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        resource_tracker.ensure_running()
        own = account(checker)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: a fork beside threads
            process = context.Process(target=time.sleep, args=(60,))
            process.start()
        assert all("a multiprocessing Process holds it" in checker.format(leak) for leak in own.leaks())
        own.restore()
        process.kill()
        assert multiprocessing.connection.wait([process.sentinel], timeout=5.0) == [process.sentinel]
        process.join()
        process.close()
        own.assert_clean(0.0)

    def test_objects_are_looked_through_once(
        self, account: Any, checker: FdChecker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[int] = []
        real = gc.get_objects
        own = account(checker)
        fds = os.pipe()
        leaks = own.leaks()
        monkeypatch.setattr(gc, "get_objects", lambda: looks.append(1) or real())
        own.verdict()
        assert looks == []
        for leak in leaks:
            checker.format(leak)
        checker.restore(leaks)
        assert looks == [1]
        assert not any(map(_is_open, fds))


class TestInnocent:
    def test_opened_and_closed(self, account: Any, checker: FdChecker, tmp_path: Path) -> None:
        own = account(checker)
        os.close(os.open(tmp_path / "file", os.O_CREAT))
        assert own.leaks() == []

    def test_nothing_at_all(self, account: Any, checker: FdChecker) -> None:
        # The descriptor of the listing itself must not show up.
        own = account(checker)
        assert own.verdict().leaks == own.verdict().leaks == []
        assert all(_is_open(fd) for fd in own.before.snapshots["fds"])

    def test_closed_within_the_grace(self, account: Any, checker: FdChecker) -> None:
        own = account(checker)
        fds = os.pipe()
        timer = threading.Timer(0.1, lambda: [os.close(fd) for fd in fds])
        timer.start()
        assert own.verdict(grace=5.0).leaks == []
        timer.join()

    def test_closed_by_the_garbage_collector(self, account: Any, checker: FdChecker) -> None:
        class Ring:
            def __init__(self) -> None:
                self.me, self.fds = self, os.pipe()

            def __del__(self) -> None:
                for fd in self.fds:
                    os.close(fd)

        own = account(checker)
        Ring()
        assert own.verdict(grace=0.0).leaks == []

    def test_number_reused_by_the_same_file(self, account: Any, checker: FdChecker, tmp_path: Path) -> None:
        fd = os.open(tmp_path / "file", os.O_CREAT)
        own = account(checker)
        os.close(fd)
        assert os.open(tmp_path / "file", os.O_RDONLY) == fd
        assert own.leaks() == []
        os.close(fd)

    @linux
    def test_file_that_was_written_anew(self, account: Any, tmp_path: Path) -> None:
        path, spare = tmp_path / "file", tmp_path / "spare"
        fd = os.open(path, os.O_CREAT)
        own = account(FdChecker(Owned()))
        os.close(fd)
        spare.touch()
        os.replace(spare, path)  # another inode of the same name
        assert os.open(path, os.O_RDONLY) == fd
        assert own.leaks() == []
        os.close(fd)

    @pytest.mark.parametrize("change", ["unlink", "rename"])
    def test_file_of_before_that_lost_its_name(
        self, account: Any, checker: FdChecker, tmp_path: Path, change: str
    ) -> None:
        path = tmp_path / "file"
        fd = os.open(path, os.O_CREAT)
        own = account(checker)
        if change == "unlink":
            path.unlink()
        else:
            path.rename(tmp_path / "other")
        assert own.leaks() == []
        os.close(fd)

    def test_standard_stream_that_is_captured(self, account: Any, checker: FdChecker, tmp_path: Path) -> None:
        # pytest points 1 and 2 at files of its own and back, between the two censuses of a test.
        kept, file = os.dup(1), os.open(tmp_path / "captured", os.O_CREAT | os.O_WRONLY)
        own = account(checker)
        os.dup2(file, 1)
        try:
            assert own.leaks() == []
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            os.close(file)

    def test_owned(self, account: Any) -> None:
        fds: set[int] = set()
        own = account(FdChecker(Owned(fds=lambda: fds)))
        fds.update(os.pipe())
        assert own.leaks() == []
        for fd in fds:
            os.close(fd)

    def test_pipe_of_the_resource_tracker(self, account: Any, checker: FdChecker) -> None:
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        own = account(checker)
        resource_tracker.ensure_running()
        assert own.leaks() == []

    @linux
    def test_shared_heap_of_multiprocessing(self, account: Any) -> None:
        own = account(FdChecker(Owned()))
        arena = multiprocessing.heap.Arena(4096)
        assert arena.fd > 0
        assert own.leaks() == []
        del arena
        gc.collect()

    def test_what_a_gpu_driver_opens_when_it_starts(self) -> None:
        # By hand: there is no GPU on every machine.
        checker = FdChecker(Owned())
        device, pipe, socket_ = (
            Open((0, n), t) for n, t in enumerate(("/dev/nvidiactl", "pipe:[1]", "socket:[2]"))
        )
        log = Open((9, 9), "/tmp/log")
        found = checker.diff({}, {3: device, 4: pipe, 5: socket_, 6: log})
        assert [leak.key for leak in found] == ["/tmp/log"]
        # The first use of the GPU comes later than the question whether there is one, and opens more of both.
        found = checker.diff({3: device}, {3: device, 4: pipe, 7: Open((0, 7), "/dev/nvidia0")})
        assert found == []
        # An interval in which it opened no device has no excuse.
        assert [leak.key for leak in checker.diff({3: device}, {3: device, 4: pipe})] == ["pipe"]

    @linux
    def test_a_pipe_that_the_gpu_driver_may_have_is_told_and_not_closed(
        self, account: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pytest_compilepool.leaks.fds._DEVICES", ("/dev/zero",))
        device = os.open("/dev/zero", os.O_RDONLY)
        own = account(FdChecker(Owned()))
        ends = os.pipe()
        try:
            leaks = own.leaks()
            assert [leak.key for leak in leaks] == ["pipe", "pipe"]
            assert "but the GPU's driver may" in own.checker.note(leaks[0])
            own.checker.restore(leaks)
            assert all(map(_is_open, ends))
        finally:
            for fd in (*ends, device):
                os.close(fd)

    @linux
    def test_the_lock_of_libuv_is_no_leak(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        own = account(FdChecker(Owned()))
        ends = os.pipe()
        os.write(ends[1], b"*")
        try:
            assert [leak.key for leak in own.leaks()] == ["pipe", "pipe"]
            monkeypatch.setitem(sys.modules, "uvloop", sys)
            assert own.leaks() == []
            os.write(ends[1], b"*")
            assert [leak.key for leak in own.leaks()] == ["pipe", "pipe"]
        finally:
            for fd in ends:
                os.close(fd)

    @linux
    def test_a_pipe_that_uvloop_may_have_is_told_and_not_closed(
        self, account: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "uvloop", sys)
        own = account(FdChecker(Owned()))
        ends = os.pipe()
        try:
            leaks = own.leaks()
            assert [leak.key for leak in leaks] == ["pipe", "pipe"]
            assert "but uvloop may" in own.checker.note(leaks[0])
            own.checker.restore(leaks)
            assert all(map(_is_open, ends))
        finally:
            for fd in ends:
                os.close(fd)


def test_no_listing_means_that_nothing_can_be_told(tmp_path: Path) -> None:
    assert FdChecker(Owned(), folder=str(tmp_path / "nowhere")).measure() is None


@pytest.mark.parametrize(
    ("target", "stable"),
    [
        ("pipe:[123]", "pipe"),
        ("socket:[123]", "socket"),
        ("anon_inode:[eventpoll]", "eventpoll"),
        ("anon_inode:inotify", "inotify"),
        ("/tmp/a b (deleted)", "/tmp/a b"),
        ("/dev/null", "/dev/null"),
    ],
)
def test_stable_target(target: str, stable: str) -> None:
    assert stable_target(target) == stable


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        ("/tmp/tmp7eypywih/log [x].txt", "/tmp/tmp*/log [[]x].txt"),
        (
            "/tmp/pytest-of-me/pytest-12/popen-gw0/test_a0/log",
            "/tmp/pytest-of-me/pytest-*/popen-gw*/test_a0/log",
        ),
        ("/var/log/[x].txt", "/var/log/[x].txt"),
        ("pipe:[123]", "pipe"),
    ],
)
def test_a_key_fits_the_next_run_too(target: str, pattern: str) -> None:
    from fnmatch import fnmatchcase

    assert stable_target(target) == pattern
    assert pattern in (target, "pipe") or fnmatchcase(target, pattern)
