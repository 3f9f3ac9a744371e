# SPDX-License-Identifier: Apache-2.0
"""Where uvloop is loaded: pipes that its library, libuv, keeps for itself, and must not lose."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.fds import FdChecker

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names targets as /proc has them")


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_lock_of_libuv_is_no_leak(account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_pipe_that_uvloop_may_have_is_told_and_not_closed(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", sys)
    own = account(FdChecker(Owned()))
    ends = os.pipe()
    try:
        leaks = own.leaks()
        assert [leak.key for leak in leaks] == ["pipe", "pipe"]
        assert "but uvloop may" in own.checker.note(leaks[0])
        own.checker.restore(leaks)
        assert all(map(is_open, ends))
    finally:
        for fd in ends:
            os.close(fd)
