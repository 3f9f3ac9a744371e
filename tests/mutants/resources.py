# SPDX-License-Identifier: Apache-2.0
"""Pools that wait for what they cannot have, and pools that take more and more."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "No job is handed out before all workers are there, and nobody gives up.",
    kills=("resources.too-few-descriptors", "resources.fork-fails"),
    requirements=REFERENCE,
)
def all_workers_or_none(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        hand_out, tell_ready = sidecar.Sidecar.hand_out, sidecar.Sidecar.tell_ready

        def wait(self: Any) -> None:
            if len(self.workers) == self.processes:
                hand_out(self)

        def ready(self: Any) -> None:
            if len(self.workers) == self.processes:
                tell_ready(self)

        sidecar.Sidecar.hand_out, sidecar.Sidecar.tell_ready = wait, ready


@mutant(
    "A sidecar that cannot fork falls silent and lives on.",
    kills="resources.fork-fails",
    requirements=REFERENCE,
)
def silent_where_it_cannot_fork(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.fork

        def fork(self: Any) -> bool:
            if not real(self) and "could not be forked" in self.why_no_fork:
                time.sleep(1000)
            return not self.why_no_fork

        sidecar.Sidecar.fork = fork


@mutant(
    "A job works with fewer workers, and who waits for the pool waits for all of them.",
    kills=("resources.fork-fails", "resources.too-few-descriptors"),
    requirements=REFERENCE,
)
def ready_means_all_of_them(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.tell_ready

        def ready(self: Any) -> None:
            if len(self.workers) == self.processes:
                real(self)

        sidecar.Sidecar.tell_ready = ready


@mutant(
    "Who waits for a pool is not told that its sidecar has died.",
    kills=("resources.sidecar-out-of-memory", "warm.sidecar-cannot-start"),
    requirements=REFERENCE,
)
def who_waits_for_the_pool_is_forgotten(side: str) -> None:
    if side == "parent":
        from concurrent.futures import Future

        from reference_pool import ReferencePool

        real = ReferencePool._die

        def die(self: Any, error: Any) -> None:
            ready = self.ready
            if not ready.done():
                self.ready = Future()
            real(self, error)
            self.ready = ready

        ReferencePool._die = die


@mutant(
    "A pool whose sidecar could not start says that it is ready.",
    kills=("resources.sidecar-out-of-memory", "warm.sidecar-cannot-start"),
    requirements=REFERENCE,
)
def ready_without_a_sidecar(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool._die

        def die(self: Any, error: Any) -> None:
            if not self.ready.done():
                self.ready.set_result(0)
            real(self, error)

        ReferencePool._die = die


@mutant(
    "A worker ends when its job has no memory left.",
    kills="resources.memory-error-of-a-job",
    requirements=REFERENCE,
)
def memory_error_ends_the_worker(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.explain

        def explain(error: BaseException) -> bytes:
            if isinstance(error, MemoryError):
                os._exit(1)
            return real(error)

        worker.explain = explain


@mutant(
    "A MemoryError is told as any error, without its name.",
    kills="resources.memory-error-of-a-job",
    requirements=REFERENCE,
)
def memory_error_in_few_words(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker
        from reference_pool.errors import RemoteError

        real = worker.explain
        worker.explain = lambda error: real(
            RemoteError("failed") if isinstance(error, MemoryError) else error
        )


@mutant(
    "The sidecar keeps a descriptor of each job.",
    kills="resources.sidecar-does-not-grow",
    requirements=REFERENCE,
)
def sidecar_keeps_descriptors(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        _after(sidecar.Sidecar, "obey", lambda: os.open(os.devnull, os.O_RDONLY))


@mutant(
    "The sidecar starts a thread for each job, which stays.",
    kills="resources.sidecar-does-not-grow",
    requirements=REFERENCE,
)
def sidecar_keeps_threads(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        _after(sidecar.Sidecar, "obey", _thread)


@mutant(
    "The parent keeps a descriptor of each job.",
    kills="resources.parent-threads-and-descriptors",
    requirements=REFERENCE,
)
def parent_keeps_descriptors(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        _after(ReferencePool, "submit", lambda: os.open(os.devnull, os.O_RDONLY))


@mutant(
    "The parent starts a thread for each job, which stays.",
    kills="resources.parent-threads-and-descriptors",
    requirements=REFERENCE,
)
def parent_keeps_threads(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        _after(ReferencePool, "submit", _thread)


@mutant(
    "The parent of torch's pool keeps a descriptor of each job.",
    kills="resources.parent-threads-and-descriptors",
    requirements=TORCH,
)
def torchs_parent_keeps_descriptors(side: str) -> None:
    if side == "parent":
        from torch._inductor.compile_worker.subproc_pool import SubprocPool

        _after(SubprocPool, "submit", lambda: os.open(os.devnull, os.O_RDONLY))


def _after(owner: Any, name: str, do: Any) -> None:
    """Have something done after each call of a method."""
    real = getattr(owner, name)

    def both(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        do()
        return found

    setattr(owner, name, both)


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


@mutant(
    "A worker keeps what it was sent.", kills="resources.worker-memory-does-not-grow", requirements=REFERENCE
)
def worker_keeps_its_jobs(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real, kept = worker.run, []

        def run(payload: bytes) -> tuple[int, bytes]:
            kept.append(payload)
            return real(payload)

        worker.run = run


@mutant(
    "The sidecar reads no more while a hundred jobs wait in its queue.",
    kills="resources.many-jobs-queued",
    requirements=REFERENCE,
)
def sidecar_takes_a_hundred_jobs(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.attend

        def attend(self: Any, fd: int) -> None:
            if fd != self.link or len(self.queue) < 100:
                real(self, fd)
            else:
                time.sleep(0.01)

        sidecar.Sidecar.attend = attend


@mutant(
    "Of more than a thousand jobs in the queue the last is forgotten.",
    kills="resources.many-jobs-queued",
    requirements=REFERENCE,
)
def sidecar_forgets_a_job(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.hand_out

        def hand_out(self: Any) -> None:
            if len(self.queue) > 4000:
                self.queue.pop()
            real(self)

        sidecar.Sidecar.hand_out = hand_out


@mutant(
    "What workers print goes to a pipe that nobody reads.",
    kills="resources.output-of-a-job",
    requirements=REFERENCE,
)
def output_that_nobody_reads(side: str) -> None:
    if side == "sidecar":
        _, write = os.pipe()
        os.dup2(write, 1)


@mutant(
    "A worker ends when its standard error is closed.",
    kills="resources.output-of-a-job",
    requirements=REFERENCE,
)
def closed_output_ends_the_worker(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.run

        def run(payload: bytes) -> tuple[int, bytes]:
            answer = real(payload)
            os.write(2, b"done\n")
            return answer

        worker.run = run
