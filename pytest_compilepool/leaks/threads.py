# SPDX-License-Identifier: Apache-2.0
"""Python threads left behind, torch's named for what they are."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Hashable, Iterator, Sequence
from types import FrameType
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.leaks.base import LeakChecker, Owned
from pytest_compilepool.records import Leak, Snapshot
from pytest_compilepool.torch_compat import pools

JOIN_TIMEOUT = 1.0  # seconds, for all threads together

# How a thread's name, or its class's, begins -> what it does and what ends it. The first that fits counts.
_KNOWN = (
    (
        "InductorSubprocHealth",
        "torch's watch over the sidecar of a compile pool; ends within 2 s after the pool",
    ),
    ("InductorSubproc", "torch's reader of a compile pool's results; ends when the pool is closed"),
    (
        "subproc_worker_timer",
        "torch's quiesce timer of a compile pool; ends some time after the pool is closed",
    ),
    (
        "ThreadPoolExecutor",
        "worker of a concurrent.futures thread pool (torch makes such too); ends with its shutdown()",
    ),
    ("_ExecutorManagerThread", "manager of a concurrent.futures process pool; ends with its shutdown()"),
    ("QueueFeederThread", "feeder of a multiprocessing queue; ends when the queue is closed"),
    ("asyncio_", "worker of an event loop's default executor; ends with loop.shutdown_default_executor()"),
)

# Threads that a library starts once, in the first use of it, and keeps for the life of the process by design.
_LIFELONG = frozenset({"tqdm_monitor"})  # tqdm's, which torch draws its progress with

# pytest-timeout's method "thread" names its timer after its own module and the test, and cancels it after
# that; ours beside it does the same.
_TIMEOUT_TIMERS = ("pytest_timeout ", "compilepool-timeout ")


class ThreadChecker(LeakChecker):
    """Threads that `threading` knows. key: (ident, native id), for idents are used again; value: name.

    Passed over: the main thread, `Owned.threads`, torch's C++ compile threads (one pool for the life of the
    interpreter, by design), tqdm's monitor (the same), the timer of a pool that is closed already, pytest-
    timeout's timer, execnet's (so xdist's) threads, trio's that have no job. Threads of C or C++ are not seen.
    """

    name: ClassVar[str] = "threads"
    cheap: ClassVar[bool] = True

    def __init__(self, owned: Owned) -> None:
        self._owned = owned

    def measure(self) -> Snapshot:
        passed = self._owned.threads() | _lifelong_threads()
        return {
            (thread.ident, thread.native_id): thread.name
            for thread in Genuine.threads()
            if thread.ident not in passed and not _is_passed_over(thread)
        }

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak | None:
        thread = _find(key)
        if thread is None:
            return None  # it has ended since it was measured
        kind = "daemon thread" if thread.daemon else "thread"
        role = next((words for start, words in _KNOWN if _begins(thread, start)), "")
        after = f"{kind} {thread.name!r}" + (f": {role}" if role else "")
        return Leak(self.name, stable_name(thread.name), "not there", after, _runs(thread), handle=key)

    def restore(self, leaks: Sequence[Leak]) -> None:
        """Only waits a moment for those that are on their way out: a thread cannot be ended from outside."""
        deadline = Genuine.monotonic() + JOIN_TIMEOUT
        for leak in leaks:
            thread = _find(leak.handle)
            if thread is not None and not _is_dummy(thread) and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - Genuine.monotonic()))

    def note(self, leak: Leak) -> str:
        return "a thread cannot be ended from outside: it stays until its function returns"


def stable_name(name: str) -> str:
    """A thread's name without the number that changes from run to run: `Thread-7 (f)` -> `Thread-* (f)`."""
    return re.sub(r"^(Thread|ThreadPoolExecutor|Dummy|asyncio)([-_])[\d_]+", r"\1\2*", name)


def _find(key: Hashable) -> threading.Thread | None:
    return next((t for t in Genuine.threads() if (t.ident, t.native_id) == key), None)


def _begins(thread: threading.Thread, start: str) -> bool:
    return thread.name.startswith(start) or type(thread).__name__ == start


def _lifelong_threads() -> set[int]:
    found: set[int] = set()
    for ref in torch_compat.live_pools():
        if ref.kind == "cpp_threads":
            found |= pools.pool_threads(ref.object)
    return found


def _is_passed_over(thread: threading.Thread) -> bool:
    if thread is threading.main_thread() or thread.name in _LIFELONG:
        return True
    if thread.name.startswith(_TIMEOUT_TIMERS):
        return True
    if _is_dummy(thread):
        return _is_execnet_or_gone(thread)
    if _is_idle_in_trio(thread):
        return True
    return torch_compat.timer_thread_is_ending(thread)


def _is_dummy(thread: threading.Thread) -> bool:
    """Whether it stands for a thread that `threading` did not start, and that asked who it is."""
    return type(thread).__name__ == "_DummyThread"


def _is_execnet_or_gone(thread: threading.Thread) -> bool:
    # Before Python 3.13 the stand-in stays when its thread has ended; a thread without a frame is no more.
    frames = list(_frames(thread))
    return not frames or any(str(frame.f_globals.get("__name__")).startswith("execnet") for frame in frames)


def _is_idle_in_trio(thread: threading.Thread) -> bool:
    """A thread that trio keeps for the next job of any event loop; it ends after 10 s without one."""
    if not thread.name.startswith("Trio thread "):
        return False
    inside = [
        frame for frame in _frames(thread) if frame.f_globals.get("__name__") == "trio._core._thread_cache"
    ]
    return [frame.f_code.co_name for frame in inside] == ["_work"]


def _frames(thread: threading.Thread) -> Iterator[FrameType]:
    """The stack of a thread, innermost first."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        yield frame
        frame = frame.f_back


_BEGINNING = ("_bootstrap", "_bootstrap_inner", "run")


def _runs(thread: threading.Thread) -> str:
    """Which function it was started with, and where it is now."""
    frames = [*_frames(thread)]
    # How every thread begins says nothing; what is threading's own after that (Event.wait) may be its target.
    while (
        frames
        and frames[-1].f_code.co_filename == threading.__file__
        and frames[-1].f_code.co_name in _BEGINNING
    ):
        frames.pop()
    if not frames:
        return "unknown (what it runs is no Python function)"
    target = f"it runs {_place(frames[-1])}"
    return target if len(frames) == 1 else f"{target}, now in {_place(frames[0])}"


def _place(frame: FrameType) -> str:
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    return f"{name} ({code.co_filename}:{frame.f_lineno})"
