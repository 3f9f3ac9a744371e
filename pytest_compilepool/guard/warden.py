# SPDX-License-Identifier: Apache-2.0
"""A session's side of its guard: started when there may be something to clean up after, and let go at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_compilepool import places, proctree, sessionrecord
from pytest_compilepool.guard import ending, watch
from pytest_compilepool.leaks import reaper
from pytest_compilepool.leaks.processes import is_adopting, stop_adopting
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.sessionrecord import Owner, SessionRecord

_PROGRAM = Path(__file__).with_name("watch.py")
_START_SECONDS = 20.0  # an interpreter without anything, on a machine that is busy with other things
_LET_GO_SECONDS = 5.0


class Warden:
    """One guard, the record that it reads, and the marks by which it finds what is this process's.

    root: pytest's root folder; worker, run: xdist's name of this process and of the whole run, or "". `trouble`: why
    there is no guard, or "".
    """

    def __init__(self, root: Path, worker: str = "", run: str = "") -> None:
        self.tag = f"{os.getpid()}-{os.urandom(16).hex()}"
        self.trouble = ""
        self.record: SessionRecord | None = None
        self._guard: ProcessKey | None = None
        self._mark: int | None = None
        key = proctree.own_key()
        mark = ""
        if hasattr(os, "memfd_create"):
            mark = f"compilepool-{os.urandom(12).hex()}"
            # Closed where something is executed, so it tells forks from programs that were started.
            self._mark = os.memfd_create(mark, os.MFD_CLOEXEC)
        owner = Owner(
            key.pid,
            key.started,
            sessionrecord.boot_id(),
            self.tag,
            mark,
            str(root),
            worker,
            run,
            tempfile.gettempdir(),
            round(time.time(), 3),
        )
        try:
            folder = places.own_folder()
            sessionrecord.prune(folder)
            self.record = SessionRecord(owner, folder)
            self._start(self.record)
        except OSError as error:
            self.trouble = str(error)
            self.close()

    def _start(self, record: SessionRecord) -> None:
        # An outer session's tag is not for its inner session's guard, nor is anything that changes how Python starts.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != proctree.TAG and not name.startswith("PYTHON")
        }
        told = {
            "pid": os.getpid(),
            "started": watch.start_of(os.getpid()),
            # Where this is a worker of xdist, its parent: what it reports to.
            "controller": [os.getppid(), watch.start_of(os.getppid())] if record.owner.worker else None,
            "record": str(record.path),
            "package": str(Path(__file__).resolve().parents[2]),
        }
        # What this process adopts would become its child, for tests to see.
        adopting = is_adopting()
        stop_adopting()
        try:
            said = subprocess.run(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                input=json.dumps(told).encode() + b"\n",
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,
                timeout=_START_SECONDS,
                check=False,
            ).stdout
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            stop_adopting(adopting)
        row = proctree.lookup(int(said)) if said.strip().isdigit() else None
        if row is None:
            raise OSError(f"{sys.executable} has not started it within {_START_SECONDS:g} s")
        self._guard = row.key

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

        Such a one is nobody's leak only where nobody looks for leaks, and torch ends it when the interpreter exits.
        """
        if self.record is not None:
            still = self._guard is not None and ending.pools_of(os.getpid())
            if still:
                self.record.write({"finished": True})
            self.record.close(keep=bool(still))
            if still:
                self._guard = None
        if self._guard is not None:
            reaper.reap([self._guard], 0.0, _LET_GO_SECONDS)
            self._guard = None
        if self._mark is not None:
            os.close(self._mark)
            self._mark = None
