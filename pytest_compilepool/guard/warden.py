# SPDX-License-Identifier: Apache-2.0
"""A session's side of its guard: started when there may be something to clean up after, and let go at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from pytest_compilepool import places, proctree, sessionrecord
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.guard import ending, launch
from pytest_compilepool.leaks import reaper
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.sessionrecord import Owner, SessionRecord

_LET_GO_SECONDS = 5.0


class Warden:
    """One guard, the record that it reads, and the marks by which it finds what is this process's.

    root: pytest's root folder; worker, run: xdist's name of this process and of the whole run, or "". `trouble`: what
    there is not, guard or record, and why; "" where there are both. Making one raises nothing.
    """

    def __init__(self, root: Path, worker: str = "", run: str = "") -> None:
        self.tag = f"{Genuine.getpid()}-{os.urandom(16).hex()}"
        self.trouble = ""
        self.record: SessionRecord | None = None
        self._guard: ProcessKey | None = None
        self._mark: int | None = None
        # A session in a session, in one process: the pools that outlive it are the outer one's.
        self._nested = os.environ.get(proctree.TAG, "").startswith(f"{Genuine.getpid()}-")
        self._mark_name = ""
        # A test may have broken anything, and whether there is a guard is not its concern.
        try:
            self._make_mark()
            owner = self._owner(str(root), worker, run)
            self._begin_record(owner)
            record = "" if self.record is None else str(self.record.path)
            # Where this is a worker of xdist, its parent is what it reports to.
            self._guard = launch.start_guard(asdict(owner), record, os.getppid() if worker else None)
        except Exception as error:
            said = str(error) if isinstance(error, launch.GuardFailed) else f"{type(error).__name__}: {error}"
            self.trouble = f"no guard for this session: {said}"
            self.close()

    def _make_mark(self) -> None:
        if hasattr(os, "memfd_create"):
            name = f"compilepool-{os.urandom(12).hex()}"
            # Closed where something is executed, so it tells forks from programs that were started.
            self._mark = os.memfd_create(name, os.MFD_CLOEXEC)
            self._mark_name = name

    def _owner(self, root: str, worker: str, run: str) -> Owner:
        key = proctree.own_key()
        return Owner(
            key.pid,
            key.started,
            sessionrecord.boot_id(),
            tag=self.tag,
            mark=self._mark_name,
            host=os.uname().nodename,
            namespace=sessionrecord.pid_namespace(),
            root=root,
            worker=worker,
            run=run,
            temporary=tempfile.gettempdir(),
            at=round(time.time(), 3),
        )

    def _begin_record(self, owner: Owner) -> None:
        try:
            folder = places.own_folder()
            sessionrecord.prune(folder)
            self.record = SessionRecord(owner, folder)
        except OSError as error:
            # The guard knows by itself what to do.
            self.trouble = (
                f"no record of this session, so `compilepool reap` will not name its tests: {error}"
            )

    @property
    def pids(self) -> set[int]:
        """The guard's own, which is nobody's leak."""
        return set() if self._guard is None else {self._guard.pid}

    @property
    def fds(self) -> set[int]:
        """Descriptors that this holds."""
        found = {self._mark, None if self.record is None else self.record.handle}
        return {fd for fd in found if fd is not None}

    def close(self) -> None:
        """The session has ended as it should: guard and record go, or stay until this process ends where a pool is left.

        Such a one is nobody's leak only where nobody looks for leaks, or somebody allows it; torch ends it when the
        interpreter exits, which may take minutes.
        """
        still = self._guard is not None and not self._nested and bool(ending.pools_of(Genuine.getpid()))
        if self.record is not None:
            if still:
                self.record.write({"finished": True})
            self.record.close(keep=still)
        guard, self._guard = self._guard, None
        if guard is not None and still:
            with contextlib.suppress(OSError):
                os.kill(guard.pid, signal.SIGUSR1)
        elif guard is not None:
            reaper.reap([guard], 0.0, _LET_GO_SECONDS)
        self._close_mark()

    def _close_mark(self) -> None:
        mark, self._mark = self._mark, None
        # A test may have closed it, and somebody else have that number now.
        with contextlib.suppress(OSError):
            if mark is not None and os.readlink(f"/proc/self/fd/{mark}").startswith(
                f"/memfd:{self._mark_name}"
            ):
                os.close(mark)
