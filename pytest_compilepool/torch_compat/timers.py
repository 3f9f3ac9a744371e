# SPDX-License-Identifier: Apache-2.0
"""The quiesce timer of a pool: torch's sleeps through its own end, ours does its job and can be ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

TIMER_THREAD = "subproc_worker_timer"
HEALTH_THREAD = "InductorSubprocHealth"


class PromptTimer:
    """Stands in for torch's `compile_worker.timer.Timer`: same rule, but `quit()` ends its thread at once.

    The rule: after the first event a thread looks every `duration / 2` seconds, and calls `call` once when
    no event came for `duration` seconds; the next event starts it anew. torch's own sleeps through
    `quit()`, so its thread outlives the pool by up to `duration / 2` (30 s by default; torch 2.10 to 2.15).

    duration: seconds; call: what to do when the time is over.
    """

    def __init__(self, duration: float, call: Callable[[], None]) -> None:
        self.duration = duration
        self.sleep_time = duration / 2
        self.call = call
        self.background_thread: threading.Thread | None = None
        self.last_called: float | None = None
        self.lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def exit(self) -> bool:
        """Whether `quit()` was called."""
        return self._ended.is_set()

    def record_call(self) -> None:
        """Note an event."""
        with self.lock:
            if self._ended.is_set():
                return
            if self.background_thread is None:
                self.background_thread = threading.Thread(target=self._check, daemon=True, name=TIMER_THREAD)
                self.background_thread.start()
            self.last_called = time.monotonic()

    def quit(self) -> None:
        """End the thread; returns at once, the thread follows within milliseconds."""
        self._ended.set()

    def _check(self) -> None:
        while not self._ended.wait(self.sleep_time):
            with self.lock:
                if self.last_called is not None and self.last_called + self.duration >= time.monotonic():
                    continue
                self.last_called = None
                self.background_thread = None
            # The pool may have closed since: torch's timer raises here in a thread that nobody watches.
            try:
                self.call()
            except RuntimeError:
                pass
            return


def make_timer_prompt(pool: Any) -> None:
    """Give a pool a timer that can be ended. Nothing happens without one, or if its thread runs."""
    timer = getattr(pool, "timer", None)
    if (
        timer is None
        or isinstance(timer, PromptTimer)
        or getattr(timer, "background_thread", None) is not None
    ):
        return
    pool.timer = PromptTimer(timer.duration, timer.call)


def timer_thread_is_ending(thread: threading.Thread) -> bool:
    """Whether this thread of torch's serves a pool that is closed, and ends by itself: nobody can hurry it.

    The timer does so within half its period, the health watch of torch 2.14 and later within 2 s.
    """
    served = getattr(getattr(thread, "_target", None), "__self__", None)
    if thread.name == TIMER_THREAD:
        return bool(getattr(served, "exit", False))
    return thread.name == HEALTH_THREAD and not getattr(served, "running", True)
