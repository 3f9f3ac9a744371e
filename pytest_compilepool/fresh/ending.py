# SPDX-License-Identifier: Apache-2.0
"""The end of a fresh interpreter: with all that it started, and not after whoever asked for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Protocol

from pytest_compilepool import proctree
from pytest_compilepool.pool import closing
from pytest_compilepool.records import ProcessKey

_LOOKS = 20
"""How often what is left is looked for, at most: processes that start others faster than they are ended are nobody's."""

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def die_with(parent: int) -> None:
    """End this process when its parent ends, however that ends; where it has ended already, at once.

    parent: pid of the process that started this one. Linux; elsewhere only the second half holds. The kernel means the
    thread that started this process: it must be one that waits for it.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was told


class Child(Protocol):
    """What is needed of a Popen here."""

    pid: int

    def poll(self) -> int | None:
        """Its status, None while it runs."""

    def wait(self, timeout: float) -> int:
        """Its status. Raises subprocess.TimeoutExpired."""


def end_all(child: Child, tag: str) -> list[ProcessKey]:
    """End an interpreter and whatever is left of it: the tree below it, and what has lost its parent but carries its mark.

    child: started as the leader of a session; tag: value of `proctree.TAG` in its environment. Returns what was left.
    """
    if child.pid <= 1:
        raise ValueError(f"pid {child.pid}: everything is below that")
    tree: list[ProcessKey] = []
    # A sidecar that is forking workers goes on with that until it is ended itself: whoever came meanwhile is seen next time.
    for _ in range(_LOOKS):
        left = [key for key in _left_of(child, tag) if key not in tree or proctree.alive(key)]
        if not left:
            break
        closing.end_processes(left)
        tree += [key for key in left if key not in tree]
    try:
        child.wait(closing.KILL_GRACE)
    except subprocess.TimeoutExpired:
        pass  # the kernel holds it; the leak check will say so
    closing.reap_adopted(tree)
    _reap_session(child.pid)
    return tree


def _left_of(child: Child, tag: str) -> list[ProcessKey]:
    rows = proctree.table()
    tree = [row.key for row in proctree.descendants(child.pid, rows)]
    own = rows.get(child.pid)
    if child.poll() is None and own is not None:
        tree.append(own.key)
    tree += [row.key for row in proctree.strays(child.pid, tag, rows)]
    tree += [row.key for row in rows.values() if _is_in(row.pid, child.pid) and row.key not in tree]
    return tree


def _reap_session(session: int) -> None:
    """Wait for what had ended before anybody looked, and has become a child of this process (a subreaper)."""
    for row in proctree.table().values():
        if row.dead and row.parent == os.getpid() and row.pid != session:
            try:
                if _is_in(row.pid, session):
                    os.waitpid(row.pid, os.WNOHANG)
            except ChildProcessError:
                continue  # somebody else was faster


def _is_in(pid: int, session: int) -> bool:
    """Whether a process belongs to a session of the kernel's."""
    try:
        return os.getsid(pid) == session
    except OSError:
        return False
