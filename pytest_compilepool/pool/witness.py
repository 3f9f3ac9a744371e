# SPDX-License-Identifier: Apache-2.0
"""Who did which job: a worker writes down that it takes one up and that it is through, where the parent can read it.

The job itself, its result and its errors go the way that torch sends them, untouched: what is under test is
torch's pool, not ours. What is written does not go through the pool either, so a job that is lost with its
worker has still said where it ran.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from pytest_compilepool.genuine import Genuine

# number of the job, pid, what (0 began, 1 ended), time.monotonic(): on Linux one clock for all processes.
_LINE = struct.Struct("=qqqd")
_BEGAN, _ENDED = 0, 1


class Witnessed:
    """A job that says who does it. Pickles by the names of this class and of the job's function.

    fn: the job; path: where to write, see `Ledger`; number: of the job, in that ledger; environ: variables that the
    worker has from now on, None for one that it is not to have: it was forked when they were others.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        path: str,
        number: int,
        environ: Mapping[str, str | None] | None = None,
    ) -> None:
        self.fn = fn
        self.path = path
        self.number = number
        self.environ = environ

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for name, value in (self.environ or {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._write(_BEGAN)
        try:
            return self.fn(*args, **kwargs)
        finally:
            self._write(_ENDED)

    def _write(self, what: int) -> None:
        # Opened each time: nothing of ours stays open in a worker. A line is written at once or not at all.
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return  # the parent has ended, and nobody will read it
        try:
            os.write(fd, _LINE.pack(self.number, Genuine.getpid(), what, time.monotonic()))
        except OSError:
            pass
        finally:
            os.close(fd)


class Entry:
    """What the ledger says of one job: who took it up and when, seconds of `time.monotonic()`."""

    __slots__ = ("began", "ended", "worker")

    def __init__(self) -> None:
        self.worker: int | None = None
        self.began: float | None = None
        self.ended: float | None = None


class Ledger:
    """Where workers write: memory of this process that other processes of the same user can append to.

    Where the kernel offers that (Linux), nothing is left of it however this process ends; elsewhere it is
    a file of the user's own in the temporary folder, removed by `close()`.
    """

    def __init__(self) -> None:
        self._file: str | None = None
        if hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd"):
            self._fd = os.memfd_create("compilepool-jobs")
            self.path = f"/proc/{Genuine.getpid()}/fd/{self._fd}"
        else:
            self._fd, self._file = tempfile.mkstemp(prefix="compilepool-jobs-")
            self.path = self._file
        # Whoever forgets to close it does not keep the descriptor; a fork of this process leaves its own alone.
        self._finalizer = weakref.finalize(self, _let_go, self._fd, self._file, Genuine.getpid())
        self._read = 0
        self._entries: dict[int, Entry] = {}

    @property
    def fds(self) -> set[int]:
        """Its descriptor in this process, while it is open."""
        return set() if self._fd < 0 else {self._fd}

    def entries(self) -> dict[int, Entry]:
        """What was written so far, by the number of the job. After `close()`, what had been read before."""
        while self._fd >= 0:
            block = os.pread(self._fd, 1024 * _LINE.size, self._read)
            whole = len(block) // _LINE.size * _LINE.size
            if not whole:
                break
            self._read += whole
            for number, pid, what, at in _LINE.iter_unpack(block[:whole]):
                entry = self._entries.setdefault(number, Entry())
                if what == _BEGAN:
                    # A second beginning: the pool was rebuilt and somebody else has taken the job up.
                    entry.worker, entry.began, entry.ended = pid, at, None
                else:
                    entry.ended = at
        return self._entries

    def close(self) -> None:
        """Read the rest, and let go of it. May be called twice."""
        if self._fd < 0:
            return
        self.entries()
        self._fd = -1
        self._finalizer()


def _let_go(fd: int, file: str | None, owner: int) -> None:
    os.close(fd)
    if file is not None and Genuine.getpid() == owner:
        os.unlink(file)
