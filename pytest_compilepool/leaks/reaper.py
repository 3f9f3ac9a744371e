# SPDX-License-Identifier: Apache-2.0
"""Ending processes within a bound, and waiting for our own dead children without robbing anybody.

A process is named by pid and start time, so that a stranger who got the pid meanwhile is never hit.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.records import ProcessKey

TERMINATE_GRACE = 1.0  # seconds that a process gets after SIGTERM
KILL_GRACE = 3.0  # seconds after SIGKILL; more means that the kernel holds it

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def reap(
    keys: Iterable[ProcessKey],
    terminate_grace: float = TERMINATE_GRACE,
    kill_grace: float = KILL_GRACE,
) -> list[ProcessKey]:
    """End these processes and everything below them: ask, wait, kill, wait.

    keys: who; terminate_grace, kill_grace: seconds to wait after SIGTERM and after SIGKILL. Returns
    those that are still there (none, but for processes stuck in the kernel or not ours to end). Our own dead
    children are waited for as `collect` does.
    """
    wanted = list(dict.fromkeys(keys))
    tree = _with_descendants(wanted)
    _signal(tree, signal.SIGTERM)
    # A stopped process acts on SIGTERM only once it goes on.
    _signal(tree, getattr(signal, "SIGCONT", None))
    left = proctree.wait_gone(tree, terminate_grace)
    if left:
        # What these have started since they were asked to end goes with them.
        tree += [key for key in _with_descendants(left) if key not in tree]
        left = [key for key in tree if proctree.alive(key)]
        _signal(left, _KILL)
        left = proctree.wait_gone(left, kill_grace)
    collect(key.pid for key in {*tree, *wanted})
    return left


def _with_descendants(keys: Iterable[ProcessKey]) -> list[ProcessKey]:
    """These and all below them, leaves first: workers go before the parent that would replace them."""
    rows = proctree.table()
    found: dict[ProcessKey, None] = {}
    for key in keys:
        row = rows.get(key.pid)
        if row is None or row.key != key or key.pid == Genuine.getpid():
            continue
        found.update(dict.fromkeys(r.key for r in (row, *proctree.descendants(key.pid, rows)) if not r.dead))
    return list(reversed(found))


def _signal(keys: Iterable[ProcessKey], number: int | None) -> None:
    for key in keys if number is not None else ():
        try:
            _signal_one(key, number)
        except (ProcessLookupError, PermissionError):
            pass  # gone, or not ours: wait_gone tells which


def _signal_one(key: ProcessKey, number: Any) -> None:
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        if proctree.alive(key):
            os.kill(key.pid, number)
        return
    try:
        handle = os.pidfd_open(key.pid)
    except OSError:  # gone, or a kernel without pidfds, or no descriptor left
        if proctree.alive(key):
            os.kill(key.pid, number)
        return
    try:
        # Looked at after the handle was taken: from here on the pid cannot become somebody else's.
        if proctree.alive(key):
            signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def collect(pids: Iterable[int]) -> None:
    """Wait for those of our own children that have ended; never blocks.

    A child that a Popen or a multiprocessing.Process still stands for is asked for through that object, which
    so learns the exit status; `waitpid` would rob it. Others are waited for directly.
    """
    if not hasattr(os, "WNOHANG"):
        return
    me = Genuine.getpid()
    rows = [row for row in map(proctree.lookup, set(pids)) if row is not None]
    dead = {row.pid for row in rows if row.dead and row.parent == me}
    if not dead:
        return
    owners = child_owners(dead)
    for pid in dead:
        if pid in owners:
            owners[pid].poll()
        else:
            wait_once(pid)


def wait_once(pid: int) -> None:
    """`waitpid` without blocking, for a child that no object stands for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # somebody else has waited for it meanwhile


def child_owners(pids: set[int]) -> dict[int, Any]:
    """The objects that stand for these children and have not seen their end yet, by pid.

    pids: children of this process. Looks through all objects that the garbage collector knows (30 ms with
    torch loaded): only for children that have been found dead.
    """
    classes = _owner_classes()
    found: dict[int, Any] = {}
    for thing in gc.get_objects():
        # type(), not isinstance(): lazy proxies answer __class__ by importing what they stand for.
        if issubclass(type(thing), classes) and getattr(thing, "returncode", 0) is None:
            pid = getattr(thing, "pid", None)
            if pid in pids:
                found[pid] = thing
    return found


def _owner_classes() -> tuple[type, ...]:
    classes: list[type] = [subprocess.Popen]
    for module in ("multiprocessing.popen_fork", "multiprocessing.popen_forkserver"):
        loaded = getattr(sys.modules.get(module), "Popen", None)
        if loaded is not None:
            classes.append(loaded)
    return tuple(classes)
