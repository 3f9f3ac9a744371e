# SPDX-License-Identifier: Apache-2.0
"""Signal handlers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from pytest_compilepool.leaks.base import Change, LeakChecker
from pytest_compilepool.records import Leak, Snapshot

# Where handlers come from that are installed once and stay for the life of the process by design: torch's for
# SIGCHLD, set by the first DataLoader with workers. It remembers having set it, and never would again.
_LIFELONG = "torch."


class SignalChecker(LeakChecker):
    """Python's handlers of all signals. key: the number; value: the handler, None where it is not Python's.

    A handler of pytest-timeout's counts as the default: it comes and goes with the test. Handlers can
    be put back from the main thread only. A handler of torch's is no leak: it stays for life, by design.
    """

    name: ClassVar[str] = "signals"
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __init__(self) -> None:
        self._numbers = sorted(int(number) for number in signal.valid_signals())

    def measure(self) -> Snapshot:
        return {number: _without_timeout(signal.getsignal(number)) for number in self._numbers}

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        for key, old, new in super().judged(before, after):
            if not str(getattr(new, "__module__", "")).startswith(_LIFELONG):
                yield key, old, new

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        assert isinstance(key, int)
        return Leak(self.name, _name(key), _words(old), _words(new), handle=(key, old))

    def restore(self, leaks: Sequence[Leak]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for leak in leaks:
            number, old = leak.handle
            if old is not None:  # a handler that was not Python's cannot be set from Python
                signal.signal(number, old)

    def note(self, leak: Leak) -> str:
        return (
            "" if leak.handle[1] is not None else "the handler before was not Python's: it cannot be put back"
        )


def _without_timeout(handler: Any) -> Any:
    return signal.SIG_DFL if getattr(handler, "__module__", "") == "pytest_timeout" else handler


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # most real-time signals have no name


def _words(handler: Any) -> str:
    if handler is None:
        return "a handler that is not Python's"
    if isinstance(handler, signal.Handlers):
        return handler.name
    name = getattr(handler, "__qualname__", None) or repr(handler)
    code = getattr(handler, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
