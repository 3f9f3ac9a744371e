# SPDX-License-Identifier: Apache-2.0
"""Tests that want the machine for themselves, and the lock that they hold alone while all others share it.

One file in the user's own folder, so that the workers of one run and sessions beside each other (`tox -p`) meet there. Its
first byte is a turnstile, its second the room: a test that wants to be alone keeps the turnstile while it waits for the room
to empty, so that nobody who comes later overtakes it. The locks are the kernel's, on behalf of a process (POSIX): they end
with it, and what it has forked does not have them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_compilepool import places, proctree, sessionrecord

try:
    import fcntl
except ImportError:  # Windows, where there is no pool of processes to share
    fcntl = None  # type: ignore[assignment]

DEPTH = "COMPILEPOOL_EXCLUSIVE"
"""Set while a test runs under the lock: a session that this test starts would wait for its own parent, and so takes another
lock, the one of its depth. 1 below a test of the first session, and so on."""

_TURNSTILE, _ROOM = 0, 1
_LOOK_AGAIN = 0.02  # seconds: who blocks on a lock is woken by it, but cannot have a bound
_LONGEST = 4096  # bytes of what a holder says of itself


class CannotEnter(Exception):
    """The lock could not be had. Its text says who has it, or why there is none."""


class NoLock(CannotEnter):
    """There is no lock to be had here at all, so nobody can be promised to be alone."""


class Exclusive:
    """The lock, for one process. timeout: seconds that it may be waited for. Nothing is opened before `held`."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        told = os.environ.get(DEPTH, "")
        self._depth = int(told) if told.isdecimal() and len(told) < 4 else 0
        self._path: Path | None = None
        self._handle = -1
        self._identity = (0, 0)
        self._owner = os.getpid()

    @contextlib.contextmanager
    def held(self, test: str, alone: bool) -> Iterator[None]:
        """Run a test with the machine to itself, or with others that share it.

        test: its node id. Raises CannotEnter and NoLock.
        """
        self._enter(test, alone)
        before = os.environ.get(DEPTH)
        os.environ[DEPTH] = str(self._depth + 1)
        try:
            yield
        finally:
            if os.getpid() == self._owner:  # a fork that a test has made has no lock, and may come by here
                os.environ.pop(DEPTH, None)
                if before is not None:
                    os.environ[DEPTH] = before
                self._leave()

    def close(self) -> None:
        """Let go of the file; the last one removes it. Raises nothing."""
        if self._handle < 0 or os.getpid() != self._owner:
            return
        with contextlib.suppress(OSError):
            if self._is_there() and all(self._try(fcntl.LOCK_EX, byte) for byte in (_TURNSTILE, _ROOM)):
                assert self._path is not None
                os.unlink(self._path)
                sessionrecord.remove_if_empty(self._path.parent)
        self._let_go()

    # -- inside --------------------------------------------------------------------------------------

    def _enter(self, test: str, alone: bool) -> None:
        if fcntl is None:
            raise NoLock(f"{test} cannot have the machine to itself: this system has no locks of that kind")
        deadline = time.monotonic() + self._timeout
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            self._through(kind, deadline, test)
            self._wait(kind, _ROOM, deadline, test)
            if alone:
                self._say({"pid": os.getpid(), "test": test})
            else:
                self._free(_TURNSTILE)
        except OSError as error:
            self._leave()
            raise NoLock(f"{test} cannot have the machine to itself: {error}") from None
        except BaseException:
            self._leave()
            raise

    def _through(self, kind: int, deadline: float, test: str) -> None:
        """The turnstile of the file that is there now: whoever closed last may just have removed the one that is open."""
        if not self._is_there():
            self._let_go()
        while True:
            while self._handle < 0:
                self._path = places.own_folder() / f"exclusive-{self._depth}.lock"
                try:
                    self._handle = places.shared_file(self._path)
                except places.NotThere:  # whoever was the last has just removed the folder
                    if time.monotonic() > deadline:
                        raise
                else:
                    self._identity = _identity(os.fstat(self._handle))
            self._wait(kind, _TURNSTILE, deadline, test)
            if self._is_there():
                return
            self._let_go()

    def _wait(self, kind: int, byte: int, deadline: float, test: str) -> None:
        while not self._try(kind, byte):
            if time.monotonic() > deadline:
                raise CannotEnter(self._why_not(test, kind == fcntl.LOCK_EX))
            time.sleep(_LOOK_AGAIN)

    def _try(self, kind: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._handle, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
            return False
        return True

    def _free(self, *bytes_: int) -> None:
        for byte in bytes_:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, byte)

    def _leave(self) -> None:
        if self._is_mine():
            self._free(_ROOM, _TURNSTILE)

    def _is_there(self) -> bool:
        """Whether the file that is open is the one that others would open."""
        if self._path is None or not self._is_mine():
            return False
        try:
            return _identity(os.lstat(self._path)) == self._identity
        except OSError:
            return False

    def _is_mine(self) -> bool:
        """Whether the descriptor is still the file's; a test may have closed it, and somebody else have the number now."""
        try:
            return self._handle >= 0 and _identity(os.fstat(self._handle)) == self._identity
        except OSError:
            return False

    def _let_go(self) -> None:
        """Of the file, and so of every lock on it."""
        if self._is_mine():
            os.close(self._handle)
        self._handle = -1

    def _say(self, who: dict[str, Any]) -> None:
        """For those who wait. Left there: whether it still holds is what the lock says."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps(who).encode()[:_LONGEST], 0)

    def _why_not(self, test: str, alone: bool) -> str:
        waited = f"waited {self._timeout:g} s (--compilepool-exclusive-timeout)"
        holders = "; ".join(self._holders()) or "nobody that can be seen from here"
        if alone:
            return f"{test} is to run alone, and {waited} for the tests beside it to end; still running: {holders}"
        return (
            f"{test} was not run: it {waited} for a test marked compilepool_exclusive, which runs alone, to end; "
            f"holding the lock: {holders}"
        )

    def _holders(self) -> list[str]:
        """Each process that has the lock, with its test where that is known."""
        assert self._path is not None
        tests: dict[int, str] = {}
        for record in sessionrecord.records(self._path.parent):
            with contextlib.suppress(OSError):
                account = sessionrecord.read_account(record)
                if account.owner.is_alive:
                    tests[account.owner.pid] = account.running
        told = self._told()
        if told is not None:
            tests.setdefault(*told)
        return [_described(pid, tests.get(pid, "")) for pid in self._lockers() if pid != os.getpid()]

    def _told(self) -> tuple[int, str] | None:
        with contextlib.suppress(OSError, ValueError):
            who = json.loads(os.pread(self._handle, _LONGEST, 0))
            if isinstance(who, dict) and type(who.get("pid")) is int and isinstance(who.get("test"), str):
                return who["pid"], who["test"]
        return None

    def _lockers(self) -> list[int]:
        """By what Linux tells of its locks (proc_locks(5)); empty elsewhere, and for processes of another pid namespace."""
        inode = str(os.fstat(self._handle).st_ino)
        found = set()
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
                words = line.split()
                if "POSIX" in words and "->" not in words and words[-3].rpartition(":")[2] == inode:
                    found.add(int(words[-4]))
        return sorted(found - {0, -1})


def _identity(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino


def _described(pid: int, test: str) -> str:
    if test:
        return f"pid {pid} in {test}"
    return f"pid {pid} ({' '.join(proctree.command(pid))[:120] or 'gone meanwhile'})"
