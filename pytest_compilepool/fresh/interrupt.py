# SPDX-License-Identifier: Apache-2.0
"""Signals that end a run: each as Ctrl-C does, once, so that what was started is ended and what was made is removed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class _Once:
    """The handler. A second signal would cut short the tidying up, which has a bound of its own."""

    came = False

    def __call__(self, number: int, frame: Any) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def as_by_ctrl_c() -> Iterator[None]:
    """Within it, the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread; later ones do nothing.

    A signal that is ignored stays ignored (`nohup`), a handler of somebody else's stays, and so does one of an outer
    block; in another thread than the main one nothing is changed. All is put back at the end.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handler = _Once()
        for number in ENDING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
