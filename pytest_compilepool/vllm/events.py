# SPDX-License-Identifier: Apache-2.0
"""What the pool of a vLLM worker went through: kept in the process, and in a file where one is named."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class VllmEvent:
    """One event.

    what: one of the names that the reference lists, such as "warm" or "quiesce"; at: `time.monotonic()`, seconds,
    which the processes of one machine share; pid: of the process; state: of the pool then, as its facade observed it;
    took: seconds, or None for a moment; detail: plain values.
    """

    what: str
    at: float
    pid: int
    state: str
    took: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


# Not waiting: a pipe that nobody reads is no reason for an engine to wait.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK

LISTENERS: list[Callable[[VllmEvent], None]] = []
"""Called with each event of this process, in the thread that has written it down; for tests, which act at one of them."""


class EventLog:
    """The events of one worker; safe across threads. path: a file for JSON lines, or None."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._events: list[VllmEvent] = []
        self.trouble = ""  # why the file could not be written to, once

    def note(self, what: str, state: str, took: float | None = None, **detail: Any) -> VllmEvent:
        """Write one down. state: of the pool; took: seconds; detail: plain values. Raises nothing."""
        event = VllmEvent(what, time.monotonic() - (took or 0.0), os.getpid(), state, took, detail)
        with self._lock:
            self._events.append(event)
            self._append(event)
        for listener in LISTENERS:
            listener(event)
        return event

    def events(self) -> list[VllmEvent]:
        """All so far, in the order in which they were written down."""
        with self._lock:
            return list(self._events)

    def _append(self, event: VllmEvent) -> None:
        if self._path is None or self.trouble:
            return
        line = json.dumps(asdict(event), default=str) + "\n"
        try:
            # One write to a file that is open for appending: lines of several workers do not mix.
            handle = os.open(self._path, _FLAGS, 0o644)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror}"


def read_events(path: str) -> list[VllmEvent]:
    """The events in a file, of all processes, by time. What is no event, as a line that was torn, is left out.

    Raises OSError where the file cannot be read, or is none.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a device read for ever
        raise OSError(errno.EINVAL, "not a regular file", path)
    found = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = VllmEvent(**json.loads(line))
            except (ValueError, TypeError, RecursionError):
                continue
            if _is_event(event):
                found.append(event)
    return sorted(found, key=lambda event: event.at)


def _is_event(event: VllmEvent) -> bool:
    """Whether each of its fields is of the kind that `EventLog` writes: whoever has the file may have changed it."""
    return (
        isinstance(event.what, str)
        and isinstance(event.state, str)
        and isinstance(event.pid, int)
        and isinstance(event.detail, dict)
        and _is_time(event.at)
        and (event.took is None or _is_time(event.took))
    )


def _is_time(value: object) -> bool:
    # A bool is an int, and an int may be larger than any float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e12 < value < 1e12
