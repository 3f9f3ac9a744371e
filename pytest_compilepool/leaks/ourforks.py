# SPDX-License-Identifier: Apache-2.0
"""When this process has forked. A dead child that began at no such time is an orphan that it was given.

Nothing else tells them apart: of a zombie the kernel shows a name, a session and a time, and an orphan of the same
interpreter has the same name. A fork that no hook of Python's saw, by a C library, is taken for an orphan.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque

_SLACK = 0.03
"""Seconds: a start time is told in hundredths, by another clock."""

_times: deque[tuple[float, float]] = deque(maxlen=1000)
"""From when to when each fork took, in seconds since boot; the oldest are forgotten."""
_begun: dict[int, float] = {}
"""By thread: since when it has been forking."""
_watching = False


def watch() -> None:
    """From now on forks are noted. It cannot be taken back, so it is done once; nothing happens but on Linux."""
    global _watching
    if not _watching and sys.platform.startswith("linux"):
        os.register_at_fork(before=_begins, after_in_parent=_is_over, after_in_child=_times.clear)
        _watching = True


def at(started: float) -> bool:
    """Whether this process was forking then. started: of a `ProcessKey`, in seconds since boot."""
    return any(begun - _SLACK <= started <= over + _SLACK for begun, over in tuple(_times))


def _begins() -> None:
    _begun[threading.get_ident()] = _now()


def _is_over() -> None:
    now = _now()
    _times.append((_begun.pop(threading.get_ident(), now), now))


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
