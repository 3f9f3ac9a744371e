# SPDX-License-Identifier: Apache-2.0
"""What a pool was given to do, and what happened to it: counts and a timeline, safe across threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from pytest_compilepool.pool.needs import cache_folders
from pytest_compilepool.pool.witness import Entry, Ledger, Witnessed
from pytest_compilepool.records import Event, JobRecord, Jobs
from pytest_compilepool.torch_compat.pools import kernel_of_job

_ERROR = 4000  # characters of an error that are kept: a worker's whole traceback, as a rule


class Timeline:
    """Events in the order in which they began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._news: list[Event] = []

    def take_news(self) -> list[Event]:
        """What was noted since the last call, whether or not `clear()` came in between."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def events(self) -> list[Event]:
        """A copy of what was noted so far, by the time it began."""
        with self._lock:
            return sorted(self._events, key=lambda event: event.at)

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            self._events.clear()

    def note(self, what: str, detail: str = "", took: float | None = None, at: float | None = None) -> None:
        """Write down one event. at: `time.monotonic()`, now unless given; took: seconds."""
        with self._lock:
            event = Event(time.monotonic() if at is None else at, what, took, detail)
            self._events.append(event)
            self._news.append(event)

    @contextlib.contextmanager
    def span(self, what: str) -> Iterator[Callable[[str], None]]:
        """An event with a length: noted when the block ends, and when it raises, with the error's name."""
        began = time.monotonic()
        details: list[str] = []
        try:
            yield details.append
        except BaseException as error:
            details.append(f"failed: {type(error).__name__}")
            raise
        finally:
            self.note(what, "; ".join(details), time.monotonic() - began, began)


class Caches:
    """The cache folders of a pool that is made now, and what its workers have to be told of others.

    torch tells them the same of its own jobs, with each.
    """

    def __init__(self) -> None:
        self._inherited = cache_folders()
        self._moved = False

    def told(self) -> dict[str, str | None] | None:
        """For a job that is sent now; nothing while they have always been what the workers have inherited."""
        now = cache_folders()
        # A worker that was told once has to be told when they are as they were, too.
        self._moved = self._moved or now != self._inherited
        return now if self._moved else None


class JobLog:
    """Counts the jobs that go through a pool and says who did each, whoever submits them, torch itself included."""

    PROBE = "_get_ready"  # torch's own question whether the pool is ready; not a job of anybody's

    def __init__(self, timeline: Timeline, *, tells_caches: bool = False) -> None:
        """tells_caches: each job is told the cache folders of when it was sent; else nothing about it is changed."""
        self._timeline = timeline
        self._tells_caches = tells_caches
        self._lock = threading.Lock()
        self._first = 1
        self._records: dict[int, JobRecord] = {}
        self._counts = Jobs()
        self._news = Jobs()
        self._ledger: Ledger | None = None
        self._submit: Callable[..., Future[Any]] | None = None
        self._caches = Caches()

    def take_news(self) -> Jobs:
        """What came since the last call, whether or not `clear()` came in between."""
        with self._lock:
            news, self._news = self._news, Jobs()
        return news

    def counts(self) -> Jobs:
        """The numbers now."""
        with self._lock:
            return self._counts

    def records(self) -> list[JobRecord]:
        """Every job since `clear()`, in the order of submission, with the worker that took it up."""
        with self._lock:
            entries = {} if self._ledger is None else self._ledger.entries()
            return [_joined(record, entries.get(number)) for number, record in self._records.items()]

    def pending(self) -> list[JobRecord]:
        """Those of them that have no result yet."""
        with self._lock:
            entries = {} if self._ledger is None else self._ledger.entries()
            waiting = [record for record in self._records.values() if record.outcome == "pending"]
            return [_joined(record, entries.get(record.number)) for record in waiting]

    @property
    def fds(self) -> set[int]:
        """Descriptors of this process that the log holds."""
        return set() if self._ledger is None else self._ledger.fds

    def clear(self) -> None:
        """Count from zero; jobs that are still out are no longer counted when they end."""
        with self._lock:
            self._first += len(self._records)
            self._records.clear()
            self._counts = Jobs()

    def close(self) -> None:
        """No job can come any more: let go of what the workers wrote to. The records stay."""
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()

    def attach(self, pool: Any) -> None:
        """Put the counter before `pool.submit`, on this one object; the class stays as it is."""
        submit = self._submit = pool.submit
        self._caches = Caches()
        with self._lock:
            if self._ledger is None or not self._ledger.fds:
                self._ledger = Ledger()
            path = self._ledger.path

        def counted(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
            name = _name(fn)
            if name == self.PROBE:
                return submit(fn, *args, **kwargs)  # type: ignore[no-any-return]
            number = self._begin(name, *kernel_of_job(args))
            told = self._caches.told() if self._tells_caches else None
            try:
                future: Future[Any] = submit(Witnessed(fn, path, number, told), *args, **kwargs)
            except BaseException as error:
                self._end(number, "failed", error)
                raise
            future.add_done_callback(lambda done: self._ended(done, number))
            return future

        pool.submit = counted

    def submit_unseen(self, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """A job of this package's own, which is nobody's: neither counted nor witnessed. After `attach()`."""
        assert self._submit is not None
        return self._submit(fn, *args)

    def _begin(self, function: str, kernel: str, source: str) -> int:
        with self._lock:
            number = self._first + len(self._records)
            self._records[number] = JobRecord(number, function, kernel, source, time.monotonic())
            self._news += Jobs(submitted=1)
            self._counts += Jobs(submitted=1)
            return number

    def _ended(self, future: Future[Any], number: int) -> None:
        if future.cancelled():
            self._end(number, "cancelled")
        else:
            error = future.exception()
            self._end(number, "done" if error is None else "failed", error)

    def _end(self, number: int, outcome: str, error: BaseException | None = None) -> None:
        added = Jobs(**{outcome: 1})
        with self._lock:
            self._news += added
            record = self._records.get(number)
            if record is not None:  # else it belongs to a test that is over
                self._counts += added
                text = "" if error is None else f"{type(error).__name__}: {error}"[:_ERROR]
                self._records[number] = replace(record, outcome=outcome, error=text)


def _name(fn: Any) -> str:
    named = getattr(fn, "func", fn)  # of a functools.partial
    return str(getattr(named, "__name__", type(named).__name__))


def _joined(record: JobRecord, entry: Entry | None) -> JobRecord:
    if entry is None:
        return record
    return replace(record, worker=entry.worker, began=entry.began, ended=entry.ended)
