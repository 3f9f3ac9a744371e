# SPDX-License-Identifier: Apache-2.0
"""What a pool was given to do, and what happened to it: counts and a timeline, safe across threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from pytest_compilepool.records import Event, Jobs


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


class JobLog:
    """Counts the jobs that go through a pool, whoever submits them, torch itself included."""

    PROBE = "_get_ready"  # torch's own question whether the pool is ready; not a job of anybody's

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._lock = threading.Lock()
        self._generation = 0
        self._counts = Jobs()
        self._news = Jobs()

    def take_news(self) -> Jobs:
        """What came since the last call, whether or not `clear()` came in between."""
        with self._lock:
            news, self._news = self._news, Jobs()
        return news

    def counts(self) -> Jobs:
        """The numbers now."""
        with self._lock:
            return self._counts

    def clear(self) -> None:
        """Count from zero; jobs that are still out are no longer counted when they end."""
        with self._lock:
            self._generation += 1
            self._counts = Jobs()

    def attach(self, pool: Any) -> None:
        """Put the counter before `pool.submit`, on this one object; the class stays as it is."""
        submit = pool.submit

        def counted(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
            if getattr(fn, "__name__", "") == self.PROBE:
                return submit(fn, *args, **kwargs)  # type: ignore[no-any-return]
            generation = self._add(submitted=1)
            try:
                future: Future[Any] = submit(fn, *args, **kwargs)
            except BaseException:
                self._add(generation, failed=1)
                raise
            future.add_done_callback(lambda done: self._ended(done, generation))
            return future

        pool.submit = counted

    def _ended(self, future: Future[Any], generation: int) -> None:
        if future.cancelled():
            self._add(generation, cancelled=1)
        elif future.exception() is not None:
            self._add(generation, failed=1)
        else:
            self._add(generation, done=1)

    def _add(self, generation: int | None = None, **more: int) -> int:
        added = Jobs(**more)
        with self._lock:
            self._news += added
            if generation is None or generation == self._generation:
                self._counts += added
            return self._generation
