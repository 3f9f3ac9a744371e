# SPDX-License-Identifier: Apache-2.0
"""Who in this process still uses a descriptor, or stands for a child process: what is held is not ours to end.

Both functions look through all objects that the garbage collector knows (30 ms with torch loaded): only where
leaks were found. Neither returns such an object, so nothing is kept alive.
"""

from __future__ import annotations

import gc
import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any


def fd_holders(fds: set[int]) -> dict[int, str]:
    """Which of these descriptors a live Python object holds. Returns its kind, the outermost one's, by number.

    Files, sockets and multiprocessing's connections and processes; a plain number in a variable cannot be seen.
    """
    ranks = _ranks()
    found: dict[int, tuple[int, str]] = {}
    for thing in gc.get_objects():
        # type(), not isinstance(): lazy proxies answer __class__ by importing what they stand for.
        kind = type(thing)
        rank = next((number for parent, number in ranks if issubclass(kind, parent)), None)
        if rank is None:
            continue
        name = _PROCESS if rank == _FINALIZER else kind.__name__
        for fd in _numbers(thing, rank):
            if fd in fds:
                found[fd] = min(found.get(fd, (rank, name)), (rank, name))
    return {fd: name for fd, (_, name) in found.items()}


_PROCESS = "multiprocessing Process"
_FINALIZER = 3


def _ranks() -> list[tuple[type, int]]:
    ranks: list[tuple[type, int]] = [
        (io.TextIOWrapper, 0),
        (io.BufferedIOBase, 1),
        (io.FileIO, 2),
        (socket.socket, 0),
    ]
    # The base class of multiprocessing's connections has no public name: take it from the public one. The
    # pipes by which it waits for a process are plain numbers, which only the finalizer of that process has.
    others = (
        ("multiprocessing.connection", "Connection", 0),
        ("multiprocessing.util", "Finalize", _FINALIZER),
    )
    for module, name, rank in others:
        loaded = getattr(sys.modules.get(module), name, None)
        if loaded is not None:
            ranks.append((loaded, rank))
    return ranks


def _numbers(thing: Any, rank: int) -> tuple[int, ...]:
    try:
        if rank != _FINALIZER:
            return (thing.fileno(),)
        closes = sys.modules["multiprocessing.util"].close_fds
        arguments = thing._args if thing.still_active() and thing._callback is closes else ()
        return tuple(number for number in arguments if isinstance(number, int))
    except Exception:  # closed, detached, half made: then it holds nothing
        return ()


def process_holders(pids: set[int]) -> dict[int, str]:
    """For which of these children somebody still has the object that stands for it. Returns its kind by pid.

    A `subprocess.Popen` or a `multiprocessing.Process` that only the bookkeeping of its own module still knows
    is nobody's. Anything else that refers to it counts: a fixture's value, a variable, a traceback.
    """
    things = list(_standing_for(pids))
    # References are counted, not looked up: variables of running functions are among nobody's referrers.
    nobody = _references([object()], 0)
    return {
        things[index].pid: type(things[index]).__name__
        for index in range(len(things))
        if _references(things, index) - _bookkeeping(things, index) > nobody
    }


def _standing_for(pids: set[int]) -> Iterator[Any]:
    base = getattr(sys.modules.get("multiprocessing.process"), "BaseProcess", None)
    classes = (subprocess.Popen,) if base is None else (subprocess.Popen, base)
    for thing in gc.get_objects():
        if issubclass(type(thing), classes):
            try:
                pid = thing.pid
            except Exception:  # closed or half made: it stands for nobody
                continue
            if pid in pids and getattr(thing, "returncode", None) is None:
                yield thing


def _references(things: list[Any], index: int) -> int:
    return sys.getrefcount(things[index])


def _bookkeeping(things: list[Any], index: int) -> int:
    """How many references the standard library keeps on its own account, to wait for the process some day."""
    active = getattr(subprocess, "_active", None) or ()
    children = getattr(sys.modules.get("multiprocessing.process"), "_children", None) or ()
    return sum(other is things[index] for group in (active, children) for other in group)
