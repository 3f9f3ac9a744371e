# SPDX-License-Identifier: Apache-2.0
"""What is remembered of descriptors is what the kernel would say again."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.fds import FdChecker
from pytest_compilepool.leaks.opened import Descriptors

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names targets as /proc has them")

SETTLED = 0.1  # seconds after which what was changed is remembered


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def targets(descriptors: Descriptors) -> dict[int, str]:
    found = descriptors.all()
    assert found is not None
    return {fd: one.target for fd, one in found.items()}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """An open file whose last change was a while ago."""
    path = tmp_path / "folder" / "log"
    path.parent.mkdir()
    with opened(path) as fd:
        time.sleep(SETTLED)
        yield fd, path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux' kinds of files")
def test_every_kind_is_as_the_kernel_names_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    descriptors = Descriptors()
    with contextlib.ExitStack() as stack:
        for path, flags in (
            (tmp_path / "file", os.O_RDWR | os.O_CREAT),
            (tmp_path / "pipe:[1]", os.O_RDWR | os.O_CREAT),
            (tmp_path, os.O_RDONLY),
            (tmp_path / "fifo", os.O_RDWR),
            (Path(os.devnull), os.O_RDONLY),
        ):
            stack.enter_context(opened(path, flags))
        for fd in (*os.pipe(), *os.pipe(), os.memfd_create("planted"), os.dup(1)):
            stack.callback(os.close, fd)
        for one in (*socket.socketpair(), socket.socket(), select.epoll()):
            stack.enter_context(one)
        for _ in range(3):
            found = descriptors.all()
            assert found is not None
            assert found == {fd: descriptors.look(fd) for fd in found}
            time.sleep(SETTLED / 2)


def test_renamed(log: tuple[int, Path]) -> None:
    fd, path = log
    descriptors = Descriptors()
    assert targets(descriptors)[fd] == str(path)
    path.rename(path.with_name("log.1"))
    assert targets(descriptors)[fd] == str(path.with_name("log.1"))


def test_renamed_in_the_tick_of_its_last_change(
    log: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock that files are stamped with may tick every few milliseconds only; this one stands still."""
    fd, path = log
    real, stamp = os.fstat, time.time_ns()

    def fstat(number: int) -> Any:
        info = real(number)
        if number != fd:
            return info
        return SimpleNamespace(
            st_dev=info.st_dev, st_ino=info.st_ino, st_mode=info.st_mode, st_ctime_ns=stamp
        )

    monkeypatch.setattr(os, "fstat", fstat)
    descriptors = Descriptors()
    assert targets(descriptors)[fd] == str(path)
    path.rename(path.with_name("log.1"))
    assert targets(descriptors)[fd] == str(path.with_name("log.1"))


def test_removed(log: tuple[int, Path]) -> None:
    fd, path = log
    descriptors = Descriptors()
    targets(descriptors)
    path.unlink()
    assert targets(descriptors)[fd] == f"{path} (deleted)"


def test_number_that_is_another_file_now(log: tuple[int, Path], tmp_path: Path) -> None:
    fd, _ = log
    descriptors = Descriptors()
    targets(descriptors)
    with opened(tmp_path / "other") as other:
        os.dup2(other, fd)
    assert targets(descriptors)[fd] == str(tmp_path / "other")


def test_nameless_that_share_an_inode() -> None:
    descriptors = Descriptors()
    with select.epoll() as poll:
        fd = poll.fileno()
        time.sleep(SETTLED)
        assert targets(descriptors)[fd] == "anon_inode:[eventpoll]"
        if not hasattr(os, "eventfd"):
            pytest.skip("no event counter in this Python")
        event = os.eventfd(0)
        os.dup2(event, fd)
        os.close(event)
        assert targets(descriptors)[fd] == "anon_inode:[eventfd]"


def test_what_is_closed_is_forgotten(log: tuple[int, Path]) -> None:
    fd, path = log
    descriptors = Descriptors()
    targets(descriptors)
    spare = os.dup(fd)
    os.close(fd)
    assert fd not in targets(descriptors)
    os.dup2(spare, fd)
    os.close(spare)
    assert targets(descriptors)[fd] == str(path)


def test_leak_is_named_by_the_folder_as_it_is_called_now(account: Any, tmp_path: Path) -> None:
    own = account(FdChecker(Owned()))
    folder = tmp_path / "old"
    folder.mkdir()
    fd = os.open(folder / "planted", os.O_CREAT)
    time.sleep(SETTLED)
    own.leaks()
    folder.rename(tmp_path / "new")
    leak, _ = own.leak()
    assert leak.after == f"fd {fd} -> {tmp_path}/new/planted"
    os.close(fd)


class TestRotation:
    """A file that its handler has opened anew under the same number is one file, by its name or by its inode."""

    def test_same_name_another_inode(self, account: Any, log: tuple[int, Path]) -> None:
        fd, path = log
        own = account(FdChecker(Owned()))
        own.checker.measure()  # it is remembered by now
        own.before = account(own.checker).before
        path.rename(path.with_name("log.1"))
        with opened(path) as other:
            os.dup2(other, fd)
        own.assert_clean(0.0)

    def test_renamed_before_the_test_and_replaced_in_it(self, account: Any, log: tuple[int, Path]) -> None:
        """The name that counts is the one it had when the test began."""
        fd, path = log
        checker = FdChecker(Owned())
        checker.measure()
        path.rename(path.with_name("log.1"))
        own = account(checker)
        with opened(path) as other:
            os.dup2(other, fd)
        leak, _ = own.leak()
        assert leak.before == f"fd {fd} -> {path}.1"
