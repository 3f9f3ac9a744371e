# SPDX-License-Identifier: Apache-2.0
"""`CaptureGuard`: what the compile pool was doing at every graph capture, and the proof that it was quiesced.

Works without a GPU and without torch: what it listens to is Python, and any class can be watched beside torch's.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from pytest_compilepool.pool.look import PoolLook, look_at_pools
from pytest_compilepool.torch_compat.captures import CaptureWatch, find_callers

_SHOWN = 3  # captures that came too early and are told in full
_JOBS_SHOWN = 5
_DESCRIBED = 20

_RUNNERS = tuple(f"{os.sep}{name}{os.sep}" for name in ("_pytest", "pluggy"))


@dataclass(frozen=True)
class CaptureRecord:
    """One graph capture.

    number: counts from 1; at: `time.monotonic()` when the look before it began, seconds; took: how long that
    look took, seconds; where: the innermost frame outside torch, as `file:line in function`; frames: the whole
    stack, outermost first; thread: name of the thread that captured; pools: what every pool of this process was
    doing right before; during: what a pool did while it lasted, in words; failed, broken: what `capture_begin`
    or `capture_end` raised, or empty texts; ended: when it ended, on the clock of `at`, None while it is under
    way; error: what went wrong in the looks, or an empty text.
    """

    number: int
    at: float
    took: float
    where: str
    frames: tuple[traceback.FrameSummary, ...]
    thread: str
    pools: tuple[PoolLook, ...] = ()
    during: tuple[str, ...] = ()
    failed: str = ""
    broken: str = ""
    ended: float | None = None
    error: str = ""

    @property
    def stack(self) -> str:
        """The stack as Python prints it, the capture last."""
        return "".join(traceback.format_list(list(self.frames)))

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions on the stack, outermost first."""
        return tuple(frame.name for frame in self.frames)

    @property
    def threads(self) -> tuple[str, ...]:
        """Names of the threads of this process that served torch's pools."""
        return tuple(name for look in self.pools for name in look.threads)

    @property
    def under_way(self) -> bool:
        """Whether it has begun and not ended."""
        return not self.failed and self.ended is None

    @property
    def quiesced(self) -> bool:
        """Whether no pool of processes had a live worker or a pending job, before it and while it lasted."""
        return not (self.error or self.during or any(look.awake for look in self.pools))

    def inside(self, function: str) -> bool:
        """Whether a function of that name was on the stack."""
        return function in self.functions

    def __str__(self) -> str:
        """What is known of it, the stack apart, in a few lines."""
        lines = [f"capture {self.number} at {self.where} (thread {self.thread})"]
        if self.failed:
            lines.append(f"  it did not begin: {self.failed}")
        for look in self.pools:
            lines.append(f"  {look}")
            lines += [f"    {text}" for text in _jobs(look, self.at)]
        lines += [f"  during the capture: {text}" for text in self.during]
        if not self.pools and not self.error:
            lines.append("  this process had no pool")
        if self.broken:
            lines.append(f"  it ended with {self.broken}")
        if self.error:
            lines.append(f"  could not look at the pools: {self.error}")
        return "\n".join(lines)


def _jobs(look: PoolLook, at: float) -> list[str]:
    told = []
    for job in look.jobs[:_JOBS_SHOWN]:
        what = f"{job.function}{f' of kernel {job.kernel}' if job.kernel else ''}"
        who = "no worker yet" if job.worker is None else f"worker pid {job.worker}"
        told.append(f"job {job.number}: {what}, pending for {max(0.0, at - job.submitted):.3f} s, {who}")
    if len(look.jobs) > _JOBS_SHOWN:
        told.append(f"and {len(look.jobs) - _JOBS_SHOWN} more jobs")
    return told


class CaptureGuard:
    """Records every graph capture of this process from `start()` to `stop()`; a context manager does both.

    Thread-safe. A look never raises into a capture: what goes wrong in it is kept, and told by `assert_quiesced`.
    """

    def __init__(self) -> None:
        self._recorder = _Recorder()
        self._watch = CaptureWatch(self._recorder)

    def start(self) -> None:
        """Begin to record; torch need not be imported yet. May be called twice."""
        self._watch.start()

    def stop(self) -> None:
        """Stop recording: torch's classes, and what `watch` was given, are as they were. The records stay."""
        self._watch.stop()

    def __enter__(self) -> CaptureGuard:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def watch(self, owner: Any, begin: str = "capture_begin", end: str | None = "capture_end") -> None:
        """Record somebody else's captures, too: a stand-in's, or another vendor's.

        owner: a class, an object or a module; begin, end: names of the functions in it that begin and end a
        capture, end may be None. Raises ValueError with one sentence if they are not there.
        """
        self._watch.watch(owner, begin, end)

    @property
    def captures(self) -> list[CaptureRecord]:
        """Every capture so far, in the order in which they began; those that failed to begin are among them."""
        return self._recorder.records()

    def assert_quiesced(self, captures: Iterable[CaptureRecord] | None = None, at_least: int = 1) -> None:
        """Fail unless every pool of processes was quiesced at each of these captures, and while it lasted.

        captures: some of `.captures`, all of them if not given; at_least: how many there must be, not
        counting those that failed to begin: a check that saw no capture proves nothing. Raises
        AssertionError with the stack of each that came too early; ValueError for a wrong argument.
        """
        __tracebackhide__ = True
        if not isinstance(at_least, int) or isinstance(at_least, bool) or at_least < 0:
            raise ValueError(f"assert_quiesced: at_least={at_least!r} is not allowed; allowed: 0, 1, 2, ...")
        wanted: Any = self.captures if captures is None else captures
        given = list(wanted) if isinstance(wanted, Iterable) else [wanted]
        for record in given:
            if not isinstance(record, CaptureRecord):
                raise ValueError(
                    f"assert_quiesced: captures={record!r} is not allowed; allowed: some of .captures"
                )
        given = list({record.number: record for record in given}.values())  # one that is named twice is one
        text = _verdict(given, at_least, None if captures is None else len(self.captures))
        if text:
            raise AssertionError(text)

    def describe(self) -> str:
        """What was recorded, a few lines for each capture."""
        records = self.captures
        lines = [f"{len(records)} captures", *(str(record) for record in records[:_DESCRIBED])]
        if len(records) > _DESCRIBED:
            lines.append(f"and {len(records) - _DESCRIBED} more")
        return "\n".join(lines)


def _verdict(given: list[CaptureRecord], at_least: int, of: int | None) -> str:
    """Why these captures do not pass, or an empty text. of: how many they were chosen from."""
    begun = [record for record in given if not record.failed]
    early = [record for record in begun if not record.quiesced]
    if not early and len(begun) >= at_least:
        return ""
    lines = []
    if early:
        lines.append(
            f"{len(early)} of {len(begun)} graph captures did not find the compile pool quiesced: "
            + ", ".join(f"number {record.number}" for record in early[:_DESCRIBED])
        )
    if len(begun) < at_least:
        chosen = "" if of is None else f" among those chosen from {of}"
        lines.append(
            f"{len(begun)} graph captures were recorded{chosen}, at least {at_least} expected: a check that saw no "
            "capture proves nothing"
        )
        lines += [str(record) for record in given if record.failed][:_SHOWN]
    for record in early[:_SHOWN]:
        lines += ["", str(record), "  stack of the capture (most recent call last):", _shown(record)]
    if len(early) > _SHOWN:
        lines += ["", *(f"capture {record.number} at {record.where}" for record in early[_SHOWN:_DESCRIBED])]
    return "\n".join(lines)


def _shown(record: CaptureRecord) -> str:
    """The stack from the test on: what pytest does around it is left out."""
    runner = [any(part in frame.filename for part in _RUNNERS) for frame in record.frames]
    first = len(runner) - runner[::-1].index(True) if True in runner else 0
    frames = record.frames[first:] or record.frames
    return "".join(
        f"  {line}" for line in "".join(traceback.format_list(list(frames))).splitlines(True)
    ).rstrip()


class _Recorder:
    """What a CaptureWatch tells, as records. The token of a capture is its number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[CaptureRecord] = []

    def records(self) -> list[CaptureRecord]:
        with self._lock:
            return list(self._records)

    def begins(self) -> int:
        at = time.monotonic()
        pools, error = _look()
        where, frames = find_callers(__name__)
        record = CaptureRecord(0, at, 0.0, where, frames, threading.current_thread().name, pools, error=error)
        with self._lock:
            number = len(self._records) + 1
            self._records.append(replace(record, number=number, took=time.monotonic() - at))
        return number

    def began(self, number: int, error: BaseException | None) -> None:
        if error is not None:
            self._change(number, failed=_told(error))

    def ends(self, number: int) -> None:
        pools, error = _look()
        with self._lock:
            before = self._records[number - 1]
        if error:
            self._change(number, error="; ".join(filter(None, (before.error, f"at its end: {error}"))))
        elif not before.error:
            self._change(number, during=tuple(_happened(before, pools)))

    def ended(self, number: int, error: BaseException | None) -> None:
        self._change(number, ended=time.monotonic(), broken="" if error is None else _told(error))

    def _change(self, number: int, **what: Any) -> None:
        with self._lock:
            self._records[number - 1] = replace(self._records[number - 1], **what)


def _look() -> tuple[tuple[PoolLook, ...], str]:
    """Every pool, and an empty text; or nothing, and what went wrong."""
    try:
        return look_at_pools(), ""
    except Exception as error:
        return (), _told(error)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _happened(record: CaptureRecord, after: Iterable[PoolLook]) -> Iterator[str]:
    """Workers that appeared and jobs that were sent since the capture began. after: a look at its end."""
    known = {look.key: look for look in record.pools}
    for look in after:
        if not look.processes:
            continue
        old = known.get(look.key, PoolLook(look.kind, look.state, ""))
        fresh = sorted(set(look.workers) - set(old.workers))
        if fresh:
            yield f"workers of the {look.kind} pool appeared: pid {', '.join(map(str, fresh))}"
        sent = look.pending - old.pending if look.sent is None else look.sent - (old.sent or 0)
        if sent > 0:
            waiting = [job.function for job in look.jobs if job.submitted >= record.at][:_JOBS_SHOWN]
            yield f"{sent} jobs were sent to the {look.kind} pool{', among them ' * bool(waiting)}{', '.join(waiting)}"
