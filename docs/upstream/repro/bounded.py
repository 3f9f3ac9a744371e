# SPDX-License-Identifier: Apache-2.0
"""Run one check where it can neither hang nor leave anything behind, and say in one line what it found.

Only the standard library, and Linux. The check runs in a process of its own, in a folder of its own. What it has started is
ended with it, also what has left its session; the folder is removed. Exit status: 1, the defect is there; 0, it is not; 2,
it cannot be told here.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

GONE, THERE, CANNOT_TELL = 0, 1, 2
WORDS = {GONE: "not there", THERE: "there", CANNOT_TELL: "cannot tell"}

READY = 120.0
"""Seconds for the first answer of a pool: its processes import torch first."""

# prctl(2)
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


class CannotTell(Exception):
    """Raised by a check: what it would look for cannot be seen here. Its text is the reason."""


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until the condition holds, so many seconds at most. Returns whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def children(pid: int) -> list[int]:
    """The live processes that this one is the parent of; one that has ended and is not yet reaped is none."""
    return [one for one, parent, state in _processes() if parent == pid and state not in "ZX"]


def alive(pid: int) -> bool:
    """Whether this process is there and has not ended."""
    return any(one == pid and state not in "ZX" for one, _, state in _processes())


def occupy(pool: Any, seconds: int = 60) -> Any:
    """Have a worker of this pool run a job of so many seconds. Returns its future when it runs; raises CannotTell.

    A worker that has not taken it up yet would still end like an idle one.
    """
    future = pool.submit(subprocess.call, ["sh", "-c", f": > begun; exec sleep {seconds}"])
    if not until(lambda: os.path.exists("begun"), READY):
        raise CannotTell("no worker took up the job")
    return future


def shutdown_waits(pool: Any, seconds: float) -> bool:
    """Whether shutdown() of this pool has not returned after so many seconds. It goes on in a thread."""
    ending = threading.Thread(target=pool.shutdown, daemon=True)
    ending.start()
    ending.join(seconds)
    return ending.is_alive()


def report(check: Callable[[], tuple[bool, str]], package: str = "torch", seconds: float = 180.0) -> NoReturn:
    """Run the check, print its verdict, and exit with it.

    check: imports what it needs itself, and returns whether the defect is there, and a sentence; or raises CannotTell.
    package: whose version stands in the verdict. seconds: of the whole check.
    """
    # Whoever ends this one has it clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CANNOT_TELL))
    status, text = _bounded(check, package, seconds)
    print(f"{Path(check.__code__.co_filename).stem}: {WORDS[status]}: {text}", flush=True)
    sys.exit(status)


def _bounded(check: Callable[[], tuple[bool, str]], package: str, seconds: float) -> tuple[int, str]:
    if not sys.platform.startswith("linux"):
        return CANNOT_TELL, "this looks into /proc, which only Linux has"
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return CANNOT_TELL, f"{package} is not here"
    # Orphans of the check become children of this process, so that it can find and end them.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = tempfile.mkdtemp(prefix="compile-pool-")
    reading, writing = os.pipe()
    try:
        if os.fork() == 0:
            os.close(reading)
            _child(check, folder, writing)
        os.close(writing)
        status, text = _answer(reading, seconds)
    finally:
        # Whoever ends this one twice does not keep it from cleaning up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    return status, f"{text} ({package} {version})"


def _child(check: Callable[[], tuple[bool, str]], folder: str, writing: int) -> NoReturn:
    """Only what is written into the pipe leaves this process: neither its output nor what it would do at its exit."""
    told: tuple[int, str] = (CANNOT_TELL, "it ended in a way of its own")
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(f"{folder}/log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        for name, below in (
            ("TMPDIR", ""),
            ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
            ("TRITON_CACHE_DIR", "triton"),
        ):
            os.environ[name] = os.path.join(folder, below)
        tempfile.tempdir = None
        # What the check writes as a module is found by it, and by what it starts.
        sys.path.insert(0, folder)
        there, text = check()
        told = (THERE if there else GONE, text)
    except CannotTell as reason:
        told = (CANNOT_TELL, str(reason))
    except BaseException as error:
        told = (CANNOT_TELL, f"the check itself failed: {error!r}")
    finally:
        os.write(writing, json.dumps(told).encode() + b"\n")
        os._exit(0)


def _answer(reading: int, seconds: float) -> tuple[int, str]:
    """What the check has written. Not to the end of the pipe: what it has forked may hold the other side of it."""
    deadline = time.monotonic() + seconds
    line = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while not line.endswith(b"\n"):
            if not select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
                return CANNOT_TELL, f"the check took more than {seconds:g} s"
            data = pipe.read(65536)
            if not data:
                return CANNOT_TELL, "the process of the check was ended"
            line += data
    status, text = json.loads(line)
    return status, text


def _processes() -> list[tuple[int, int, str]]:
    """Of all processes: pid, parent, state."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path("/proc", entry, "stat").read_text(errors="replace")
            except OSError:
                # It has ended since.
                continue
            state, parent = text.rpartition(")")[2].split()[:2]
            found.append((int(entry), int(parent), state))
    return found


def _end_descendants() -> None:
    """Each that is ended hands its own children up to this process, until there are none."""
    while True:
        for pid in children(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
