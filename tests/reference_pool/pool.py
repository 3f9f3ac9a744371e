# SPDX-License-Identifier: Apache-2.0
"""The parent's side: sends jobs, and gives every one of them an answer within a bound, whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import multiprocessing.util
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from reference_pool import frames
from reference_pool.count import default_processes
from reference_pool.errors import PoolClosed, PoolError, SidecarDied, WorkerDied

SHUTDOWN_SECONDS = 5.0  # for a sidecar that is asked to go; then it is killed


class ReferencePool:
    """A sidecar and its workers. processes: workers at most, None for the default; quiesce_after: idle seconds, or
    None; preload: modules that the sidecar imports before it forks."""

    def __init__(
        self, processes: int | None = None, *, quiesce_after: float | None = None, preload: Sequence[str] = ()
    ) -> None:
        self.processes = default_processes() if processes is None else processes
        self.owner = os.getpid()
        self.numbers = itertools.count(1)
        self.pending: dict[int, Future[Any]] = {}
        self.lock = threading.Lock()  # of `pending` and `dead`; nothing is called while it is held
        self.writing = threading.Lock()
        self.dead: PoolError | None = None
        self.ready: Future[int] = Future()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the sidecar)
        self.link, theirs = socket.socketpair()
        self.process = self._start(theirs, quiesce_after, preload)
        theirs.close()
        self.reader = threading.Thread(target=self._read, name="reference-pool", daemon=True)
        self.reader.start()
        atexit.register(self.shutdown)
        # A child of multiprocessing runs no atexit.
        self.finalizer = multiprocessing.util.Finalize(self, self.shutdown, exitpriority=10)

    def _start(self, link: socket.socket, quiesce_after: float | None, preload: Sequence[str]) -> Any:
        command = [sys.executable, "-m", "reference_pool", str(link.fileno()), str(self.processes)]
        command += [str(self.owner), "never" if quiesce_after is None else str(quiesce_after), *preload]
        path = os.pathsep.join(filter(None, sys.path))
        # Blocked until the sidecar ignores it: a Ctrl-C in between is for the parent alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return subprocess.Popen(
                command,
                pass_fds=[link.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.said,
                env={**os.environ, "PYTHONPATH": path},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # -- what one does with it -------------------------------------------------------------------------

    @property
    def sidecar_pid(self) -> int:
        return int(self.process.pid)

    @property
    def running(self) -> bool:
        """Whether a job that is sent now will be taken up."""
        return self.dead is None and self.owner == os.getpid()

    def wait_ready(self, timeout: float) -> int:
        """Until every worker that can be had is there. Returns how many; raises what stands in the way."""
        return self.ready.result(timeout)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """A job for a worker; a future that gets an answer in any case. Raises PoolError where the pool is over."""
        job = pickle.dumps((function, args, kwargs))
        payload = pickle.dumps((surroundings(b"__main__" in job), job))
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self.lock:
            self._check()
            number = next(self.numbers)
            self.pending[number] = future
        future.words = functools.partial(in_words, function, *args)  # type: ignore[attr-defined]
        self._send(frames.JOB, number, payload)
        return future

    def quiesce(self) -> None:
        """Let the workers go when they have done what was sent. Returns at once."""
        with self.lock:
            self._check()
        self._send(frames.QUIESCE)

    def wakeup(self) -> None:
        """Have all workers again. Returns at once."""
        with self.lock:
            self._check()
        self._send(frames.WAKEUP)

    def shutdown(self) -> None:
        """End all of it, jobs included, within a bound. Never raises."""
        if self.owner != os.getpid():
            return
        self._die(PoolClosed("the pool was shut down"))
        with contextlib.suppress(OSError), self.writing:
            frames.send(self.link.fileno(), frames.SHUTDOWN)
        try:
            self.process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if threading.current_thread() is not self.reader:
            self.reader.join()
        self.link.close()
        self.said.close()
        self.finalizer.cancel()
        atexit.unregister(self.shutdown)

    # -- inside ------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.owner != os.getpid():
            raise PoolError(f"this pool belongs to pid {self.owner}, from which this process was forked")
        if self.dead is not None:
            raise self.dead

    def _send(self, kind: int, number: int = 0, payload: bytes = b"") -> None:
        try:
            with self.writing:
                frames.send(self.link.fileno(), kind, number, payload)
        except OSError:
            pass  # the reader sees the end as well, and tells everybody

    def _read(self) -> None:
        """The thread that reads: until the sidecar is gone."""
        fd = self.link.fileno()
        while (frame := frames.receive(fd)) is not None:
            self._hear(*frame)
        if self.dead is None:
            self._die(self._death())

    def _hear(self, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.READY:
            self.ready.set_result(number)
            return
        if kind == frames.BROKEN:
            error: PoolError = pickle.loads(payload)[0]
            self._die(error)
            return
        with self.lock:
            future = self.pending.pop(number, None)
        if future is None:
            return
        try:
            value = pickle.loads(payload)
        except BaseException as error:
            settle(future, PoolError(f"its result cannot be loaded: {type(error).__name__}: {error}"))
            return
        if kind == frames.RESULT:
            settle(future, None, value)
        elif isinstance(value[0], WorkerDied) and hasattr(future, "words"):
            # The sidecar cannot say which: it does not unpack jobs.
            settle(future, WorkerDied(f"{value[0]}; the job was {future.words()}"))
        else:
            settle(future, value[0])

    def _death(self) -> PoolError:
        """What there is to say about a sidecar that went by itself."""
        try:
            code = self.process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        how = "is still there" if code is None else f"exited with status {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        self.said.seek(0)
        words = self.said.read().decode(errors="replace").strip()[-2000:]
        text = f"the sidecar (pid {self.process.pid}) {how} at {time.strftime('%H:%M:%S')}; "
        return SidecarDied(text + (f"it said last:\n{words}" if words else "it said nothing"))

    def _die(self, error: PoolError) -> None:
        """From now on the pool is over: who waits is told, and who comes is."""
        with self.lock:
            if self.dead is not None:
                return
            self.dead = error
            left, self.pending = list(self.pending.values()), {}
        for future in left:
            settle(future, error)
        if not self.ready.done():
            settle(self.ready, error)


def settle(future: Future[Any], error: BaseException | None, value: Any = None) -> None:
    """Give a future its answer. What its callbacks raise is theirs, and does not end the thread that reads."""
    try:
        future.set_result(value) if error is None else future.set_exception(error)
    except BaseException as raised:
        print(f"a callback raised {type(raised).__name__}: {raised}", file=sys.stderr)


def in_words(value: Any, *args: Any) -> str:
    """A function, and what it is called with, by name."""
    if isinstance(value, functools.partial):
        return in_words(value.func, *value.args, *args)
    name = getattr(value, "__qualname__", None) or type(value).__name__
    told = [repr(one)[:80] if isinstance(one, (str, int)) else in_words(one) for one in args]
    return f"{name}({', '.join(told)})" if callable(value) else str(name)


def surroundings(with_main: bool) -> dict[str, Any]:
    """What a job may find where it was sent from. with_main: it names something of the main module."""
    file = getattr(sys.modules["__main__"], "__file__", None) if with_main else None
    path = None if file is None else os.path.abspath(file)
    config = sys.modules.get("torch._inductor.config")
    return {
        "path": list(sys.path),
        "environment": dict(os.environ),
        "main": path,
        "settings": None if config is None else config.save_config(),
    }
