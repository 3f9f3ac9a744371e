# SPDX-License-Identifier: Apache-2.0
"""The sidecar: one thread, one loop. It forks workers, hands them jobs, and never unpacks any of them."""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import pickle
import selectors
import signal
import socket
import time
from dataclasses import dataclass

from reference_pool import frames, worker
from reference_pool.errors import PoolError, WorkerDied

BIRTHS = 3  # workers that may die before they say hello, one after the other, before jobs are given up


class Stop(Exception):
    """The loop is over."""


@dataclass
class Worker:
    """One worker: its pid, the link to it, and the number of its job."""

    pid: int
    link: int
    job: int | None = None
    hello: bool = False


class Sidecar:
    """The loop. link: to the parent; processes: how many workers at most; quiesce_after: idle seconds, or None."""

    def __init__(self, link: int, processes: int, parent: int, quiesce_after: float | None) -> None:
        self.link, self.processes, self.quiesce_after = link, processes, quiesce_after
        self.workers: dict[int, Worker] = {}
        self.queue: collections.deque[tuple[int, bytes]] = collections.deque()
        self.awake = True
        self.told_ready = False
        self.died_at_birth = 0
        self.idle_since = time.monotonic()
        self.selector = selectors.DefaultSelector()
        self.selector.register(link, selectors.EVENT_READ)
        # Whoever else holds the parent's end of the link: this says when the parent itself is gone.
        self.parent = os.pidfd_open(parent)
        self.selector.register(self.parent, selectors.EVENT_READ)

    def run(self) -> None:
        """Until the parent says so, or is gone."""
        with contextlib.suppress(Stop):
            self.fill()
            while True:
                for key, _ in self.selector.select(self.patience()):
                    self.attend(key.fd)
                self.maybe_quiesce()
        self.end_workers()

    def patience(self) -> float | None:
        """Seconds to wait for the next event; None: for as long as it takes."""
        if self.quiesce_after is None or not self.workers or self.busy():
            return None
        return max(0.0, self.idle_since + self.quiesce_after - time.monotonic())

    def busy(self) -> bool:
        return bool(self.queue) or any(one.job is not None for one in self.workers.values())

    def attend(self, fd: int) -> None:
        """Something can be read there."""
        if fd == self.parent:
            raise Stop
        if fd == self.link:
            self.obey(frames.receive(fd))
        elif fd in self.workers:
            self.hear(self.workers[fd], frames.receive(fd))

    # -- what the parent says ------------------------------------------------------------------------

    def obey(self, frame: tuple[int, int, bytes] | None) -> None:
        if frame is None or frame[0] == frames.SHUTDOWN:
            raise Stop
        kind, number, payload = frame
        if kind == frames.JOB:
            self.queue.append((number, payload))
            self.awake = True
            self.hand_out()
        elif kind == frames.WAKEUP:
            self.awake = True
            self.idle_since = time.monotonic()
            self.fill()
        elif kind == frames.QUIESCE:
            self.quiesce()

    def quiesce(self) -> None:
        """Let go who is idle; who is not goes as soon as there is nothing left to do."""
        self.awake = False
        if not self.queue:
            for one in [one for one in self.workers.values() if one.job is None]:
                self.dismiss(one)

    def maybe_quiesce(self) -> None:
        if self.patience() == 0.0:
            self.quiesce()

    # -- workers ------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Fork until all are there, or as many as can be had."""
        while len(self.workers) < self.processes and self.fork():
            pass
        if not self.workers:
            self.give_up(self.why_no_fork)

    def hand_out(self) -> None:
        """Give jobs to who is idle; fork where nobody is and there is room."""
        while self.queue:
            idle = next((one for one in self.workers.values() if one.job is None), None)
            if idle is None:
                if len(self.workers) >= self.processes or not self.fork():
                    break
                continue
            number, payload = self.queue.popleft()
            idle.job = number
            try:
                frames.send(idle.link, frames.JOB, number, payload)
            except OSError:
                self.bury(idle)
        if self.queue and not self.workers:
            self.give_up(self.why_no_fork)

    def fork(self) -> bool:
        """One worker more; False, and the reason in `why_no_fork`, where there can be none."""
        self.why_no_fork = ""
        if self.died_at_birth >= BIRTHS:
            self.why_no_fork = f"{self.died_at_birth} workers died before they were ready"
            return False
        try:
            ours, theirs = (end.detach() for end in socket.socketpair())
        except OSError as error:
            self.why_no_fork = (
                f"worker {len(self.workers) + 1} of {self.processes} has no descriptors: {error}"
            )
            return False
        sidecar = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(ours), os.close(theirs)
            self.why_no_fork = (
                f"worker {len(self.workers) + 1} of {self.processes} could not be forked: {error}"
            )
            return False
        if pid == 0:
            # Nobody but the sidecar holds its ends: who reads there sees it end.
            for fd in (ours, self.link, self.parent, *self.workers):
                os.close(fd)
            self.selector.close()
            worker.main(theirs, sidecar)
        os.close(theirs)
        self.workers[ours] = Worker(pid, ours)
        self.selector.register(ours, selectors.EVENT_READ)
        return True

    def hear(self, one: Worker, frame: tuple[int, int, bytes] | None) -> None:
        """A worker said something, or is no more."""
        if frame is None:
            self.bury(one)
            self.hand_out()
            return
        kind, number, payload = frame
        if kind == frames.HELLO:
            one.hello, self.died_at_birth = True, 0
            self.tell_ready()
            return
        one.job = None
        self.idle_since = time.monotonic()
        self.tell(kind, number, payload)
        self.hand_out()
        if not self.awake and not self.queue and one.job is None:
            self.dismiss(one)

    def tell_ready(self) -> None:
        if not self.told_ready and all(one.hello for one in self.workers.values()):
            self.told_ready = True
            self.tell(frames.READY, len(self.workers), b"")

    def dismiss(self, one: Worker) -> None:
        """An idle worker goes: it sees the end of its link, and is waited for."""
        self.drop(one)
        os.waitpid(one.pid, 0)

    def bury(self, one: Worker) -> None:
        """A worker has ended by itself: its job, and no other, ends with it."""
        self.drop(one)
        _, status = os.waitpid(one.pid, 0)
        if not one.hello:
            self.died_at_birth += 1
        if one.job is not None:
            self.fail(one.job, WorkerDied(f"the worker (pid {one.pid}) that did this job {ended(status)}"))
        if self.awake and not self.told_ready:
            self.fill()

    def drop(self, one: Worker) -> None:
        self.selector.unregister(one.link)
        os.close(one.link)
        del self.workers[one.link]

    def end_workers(self) -> None:
        """All of them, and whatever their jobs have started."""
        for one in list(self.workers.values()):
            with contextlib.suppress(OSError):
                os.killpg(one.pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.kill(one.pid, signal.SIGKILL)  # should it have had no time for a group of its own
        for one in list(self.workers.values()):
            self.dismiss(one)

    # -- what the parent is told ----------------------------------------------------------------------

    def tell(self, kind: int, number: int, payload: bytes) -> None:
        try:
            frames.send(self.link, kind, number, payload)
        except OSError:
            raise Stop from None

    def fail(self, number: int, error: PoolError) -> None:
        self.tell(frames.ERROR, number, pickle.dumps((error, str(error))))

    def give_up(self, why: str) -> None:
        """No worker can be had: every job that waits is told so, and so is who waits for the pool."""
        self.died_at_birth = 0
        while self.queue:
            self.fail(self.queue.popleft()[0], PoolError(why))
        if not self.told_ready:
            self.tell(frames.BROKEN, 0, pickle.dumps((PoolError(why), why)))


def ended(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def main(arguments: list[str]) -> None:
    """link, processes, parent's pid, idle seconds or "never", then modules to import before anything is forked."""
    link, processes, parent, quiesce_after, *preload = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for name in preload:
        importlib.import_module(name)
    seconds = None if quiesce_after == "never" else float(quiesce_after)
    Sidecar(int(link), int(processes), int(parent), seconds).run()
