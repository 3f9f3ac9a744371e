# SPDX-License-Identifier: Apache-2.0
"""Starting the guard. Not by `subprocess`: a test may have put something else in its place, whose answer is anything."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.guard import watch
from pytest_compilepool.leaks.processes import is_adopting, stop_adopting
from pytest_compilepool.records import ProcessKey

PROGRAM = Path(__file__).with_name("watch.py")
START_SECONDS = (
    5.0  # an interpreter without anything takes 20 ms, on a machine that is busy with other things more
)


class GuardFailed(RuntimeError):
    """There is none. Its text says why."""


def start_guard(owner: dict[str, Any], record: str, controller: int | None) -> ProcessKey:
    """Start a guard of this process. owner: as a record has it; record: its path or ""; controller: a pid or None.

    Returns who it is. Raises GuardFailed.
    """
    told = {
        "pid": Genuine.getpid(),
        "started": watch.start_of(Genuine.getpid()),
        "controller": None if controller is None else [controller, watch.start_of(controller)],
        "owner": owner,
        "record": record,
        "package": str(Path(__file__).resolve().parents[2]),
    }
    if not isinstance(sys.executable, str) or not sys.executable:
        raise GuardFailed("it is not known which Python runs here (sys.executable)")
    # What this process adopts would become its child, for tests to see.
    adopting = is_adopting()
    stop_adopting()
    try:
        said = _spawned(json.dumps(told).encode() + b"\n")
    except (OSError, TypeError, ValueError) as error:
        raise GuardFailed(f"{sys.executable}: {error}") from None
    finally:
        stop_adopting(adopting)
    row = proctree.lookup(int(said)) if said.strip().isdigit() and len(said) < 12 else None
    # Whoever it is will be killed one day: it must be ours, and be that program.
    if row is None or str(PROGRAM) not in proctree.command(row.pid) or not _is_young(row.key):
        raise GuardFailed(f"{sys.executable} has not started it within {START_SECONDS:g} s")
    return row.key


def _is_young(key: ProcessKey) -> bool:
    return key.started >= proctree.own_key().started


def _spawned(line: bytes) -> bytes:
    """Run the program, give it the line, and wait for its first process to end. What that has said."""
    # An outer session's tag is not for its inner session's guard, nor is anything that changes how Python starts.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != proctree.TAG and not name.startswith("PYTHON")
    }
    with contextlib.ExitStack() as stack:
        descriptors = [*os.pipe(), *os.pipe(), os.open(os.devnull, os.O_WRONLY)]
        for number in descriptors:
            stack.callback(_closed, number)
        theirs, ours, answer, said, nothing = descriptors
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(PROGRAM)],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs, 0),
                (os.POSIX_SPAWN_DUP2, said, 1),
                (os.POSIX_SPAWN_DUP2, nothing, 2),
            ],
        )
        try:
            os.close(said)
            # Less than what a pipe holds: it does not wait for a reader.
            os.write(ours, line[:60_000])
            return os.read(answer, 20) if select.select([answer], [], [], START_SECONDS)[0] else b""
        finally:
            _wait_for(pid)


def _closed(number: int) -> None:
    with contextlib.suppress(OSError):
        os.close(number)


def _wait_for(pid: int) -> None:
    """For the first process, which ends at once; one that does not is killed."""
    deadline = time.monotonic() + 1.0
    with contextlib.suppress(ChildProcessError):  # somebody waits for all children of this process
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.001)
