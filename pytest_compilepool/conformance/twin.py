# SPDX-License-Identifier: Apache-2.0
"""Another interpreter, forked from this one: as new as this one is, which has done nothing yet."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from pytest_compilepool import proctree
from pytest_compilepool.conformance.interpreters import environment
from pytest_compilepool.conformance.order import LOG

_MOMENT = 0.5

_IMPORTED = "pytest_compilepool.conformance.forkserver"
"""What a process that was forked has, and a new one has not."""

_armed: tuple[float, TextIO] | None = None


def arm(seconds: float, stacks: TextIO) -> None:
    """End this process after so long, and tell where it stood."""
    global _armed
    _armed = time.monotonic() + seconds, stacks
    faulthandler.dump_traceback_later(seconds, exit=True, file=stacks)


def disarm() -> None:
    """Do not end it."""
    global _armed
    _armed = None
    faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _disarmed() -> Iterator[None]:
    """That has a thread of its own, which a fork would wait for in vain."""
    was = _armed
    disarm()
    try:
        yield
    finally:
        if was is not None:
            arm(max(0.001, was[0] - time.monotonic()), was[1])


class Twin:
    """A process that this one has forked, with what a Popen has for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float) -> int:
        """Its status. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            ended = os.pidfd_open(self.pid)
            try:
                if not select.select([ended], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("a forked interpreter", timeout)
            finally:
                os.close(ended)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        """With SIGKILL."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def is_forked() -> bool:
    """Whether this process was forked from one that had imported what it needs, and is no new interpreter."""
    return _IMPORTED in sys.modules


def fork(folder: Path, tag: str, path: list[str]) -> Twin | None:
    """One that does the order in that folder; None where this process has threads, or is itself no forked one: a new
    interpreter is then as good.

    tag: value of `proctree.TAG` for it; path: its import path.
    """
    if not is_forked():
        return None
    log, variables = folder / LOG, {**environment(folder, os.environ), proctree.TAG: tag}
    parent = os.getpid()
    with _disarmed():
        # The one that would have ended this process may take a moment to go.
        deadline = time.monotonic() + _MOMENT
        while len(os.listdir("/proc/self/task")) > 1:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        log.write_bytes(b"")
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                become(folder, log, variables, path, [str(folder), str(parent)])
                from pytest_compilepool.conformance import child

                child.main(str(folder), parent)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(1)
    return Twin(pid)


def become(
    folder: str | Path, log: str | Path, environment: Mapping[str, str], path: list[str], arguments: list[str]
) -> None:
    """What a new interpreter would have had from its parent: folder, streams, environment, import path, arguments."""
    os.chdir(folder)
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY)):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    sys.argv[:] = ["-c", *arguments]
    # It was found out in the environment of before.
    tempfile.tempdir = None
    if "multiprocessing.process" in sys.modules:
        # Where what is spawned begins.
        sys.modules["multiprocessing.process"].ORIGINAL_DIR = str(folder)  # type: ignore[attr-defined]
