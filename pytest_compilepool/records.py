# SPDX-License-Identifier: Apache-2.0
"""The plain records that travel between the rooms of the package (floor 0: imports nothing of ours)."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class ProcessKey:
    """Who a process is: a pid alone is reused, a pid with its start time is not.

    pid: the process id.
    started: when it started, in seconds since boot where /proc tells it, else in seconds since
        the epoch; only compared with values from the same machine and boot.
    """

    pid: int
    started: float

    def __str__(self) -> str:
        return f"pid {self.pid}"


class PoolState(str, enum.Enum):
    """What a compile pool is seen to be, never what somebody remembers it to be."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    PRIMED = "primed"
    BUSY = "busy"
    QUIESCED = "quiesced"
    BROKEN = "broken"
    CLOSED = "closed"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PoolStatus:
    """One observation: the state, the sentence that explains it, and both witnesses.

    torch_says: what torch's own object claims; os_says: what the process tree shows.
    """

    state: PoolState
    reason: str
    torch_says: str
    os_says: str


@dataclass(frozen=True)
class Jobs:
    """How many jobs a pool was given since it was warmed, and how they ended."""

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    def __add__(self, other: Jobs) -> Jobs:
        return Jobs(
            self.submitted + other.submitted,
            self.done + other.done,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
        )

    @property
    def pending(self) -> int:
        """Those without a result."""
        return self.submitted - self.done - self.failed - self.cancelled


@dataclass(frozen=True)
class JobRecord:
    """One job of a pool, as far as it has got.

    number: counts the jobs of one pool, from 1; function: its name; kernel, source: name of the Triton
    kernel that it compiles and a key of its source, or empty texts; submitted: `time.monotonic()`, seconds;
    worker: pid of the process that took it up, None while nobody has (or could not say so); began, ended: when,
    on the clock of `submitted`, None for what has not happened; outcome: pending, done, failed or cancelled;
    error: what it failed with, class and text, or an empty text.
    """

    number: int
    function: str
    kernel: str
    source: str
    submitted: float
    worker: int | None = None
    began: float | None = None
    ended: float | None = None
    outcome: str = "pending"
    error: str = ""


@dataclass(frozen=True)
class Event:
    """One line of a pool's timeline.

    at: `time.monotonic()` when it began, seconds; took: how long it lasted, seconds, or None for a
    moment; detail: free text.
    """

    at: float
    what: str
    took: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Leak:
    """Something that was not there before the test, or was different, and is still so.

    checker: the name of the checker that found it (what `allow=[...]` takes).
    key: what it is, in one word or so that a pattern can name it: `thread name`, `FOO`, `pipe:[12]`.
    before, after: what was measured, in words; who: who made it, as far as can be told; since: when
    it appeared, in words; handle: what the checker needs to put it right (never shown, never sent).
    """

    checker: str
    key: str
    before: str
    after: str
    who: str = ""
    since: str = ""
    handle: Any = field(default=None, compare=False, repr=False)

    @property
    def silence(self) -> str:
        """The line that silences exactly this leak."""
        return f'@pytest.mark.compilepool_leaks(allow=["{self.checker}:{self.key}"], reason="...")'


# What a checker measured: a mapping from what a thing is to how it is. Two of them are compared
# key by key, so one rule serves processes (only keys matter) and settings (values matter too).
Snapshot = dict[Hashable, Any]
