# SPDX-License-Identifier: Apache-2.0
"""Living with pytest-timeout: when the time of a test is up and a pool is alive, its report holds what explains it.

Only loaded where that plugin is. Its method "thread" ends the process at once, so what is to be told is gathered a moment
before the time is up; a test that ends in that moment after all shows nothing of it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pytest_compilepool.genuine import Genuine
from pytest_compilepool.keys import SECTIONS
from pytest_compilepool.torch_compat.installed import inductor_loaded

_GONE_SECONDS = 0.2

TITLE = "compile pool when the time was up"


def lead_of(timeout: float) -> float:
    """Seconds before the end of a timeout at which the pool is looked at. timeout: seconds."""
    return min(1.0, timeout / 4)


class Timeouts:
    """A plugin of its own. note: is given what was found, to be written where it outlives the process.

    A thread is only there while a test runs in which there may be a pool: a test that forks is warned of threads.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._waiting: tuple[pytest.Item, str, float, float] | None = None
        self._timers: dict[int, threading.Timer] = {}
        self._owner = Genuine.getpid()

    @pytest.hookimpl(wrapper=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> Generator[None, object, object]:
        """A timer of ours is set just before that of pytest-timeout."""
        self._cancel(item)
        lead = lead_of(settings.timeout)
        self._waiting = (item, settings.method, time.monotonic() + settings.timeout - lead, lead)
        if inductor_loaded():
            self.arm()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> Generator[None, object, object]:
        """The test has ended in time, or stands in a debugger."""
        self._cancel(item)
        return (yield)

    def arm(self) -> None:
        """From here on the test that runs may have a pool."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or Genuine.getpid() != self._owner:
            return
        item, method, when, lead = waiting
        timer = threading.Timer(max(0.0, when - time.monotonic()), self._gather, (item, method, lead))
        timer.daemon = True
        timer.name = f"compilepool-timeout {item.nodeid}"
        try:
            self._timers[id(item)] = timer
            timer.start()
        except RuntimeError:
            del self._timers[id(item)]  # no thread can be started: then the report has one section less

    def _cancel(self, item: pytest.Item) -> None:
        self._waiting = None
        timer = self._timers.pop(id(item), None)
        if timer is not None:
            timer.cancel()
            # It has gone when the next test counts threads; one that is gathering takes its time.
            if timer is not threading.current_thread():
                timer.join(_GONE_SECONDS)

    def _gather(self, item: pytest.Item, method: str, seconds: float) -> None:
        """In the timer's thread, while the test still runs."""
        from pytest_compilepool.pool import diagnosis

        try:
            text = diagnosis.explain(seconds * 0.7, everything=item.config.get_verbosity() > 1)
        except Exception as error:  # torch half imported, a pool half made: then that is what is known
            text = f"the pools could not be looked at: {type(error).__name__}: {error}"
        if not text or id(item) not in self._timers:
            return
        self._note(text)
        if method == "thread":
            # It prints what was captured, and then the process ends: no report will be made.
            print(f"\n{TITLE}:\n{text}", file=sys.stderr, flush=True)
        else:
            item.stash.setdefault(SECTIONS, []).append((TITLE, lambda: text))
