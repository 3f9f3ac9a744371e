# SPDX-License-Identifier: Apache-2.0
"""Deaths that are not told of, or that take more with them than they should."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "The job of a worker that died gets no answer.",
    kills=("death.worker", "death.worker-names-it", "death.worker-spares-innocents"),
    requirements=REFERENCE,
)
def worker_death_is_not_told(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.bury

        def bury(self: Any, one: Any) -> None:
            one.job = None
            real(self, one)

        sidecar.Sidecar.bury = bury


@mutant(
    "The error of a worker that died says only that something went wrong.",
    kills="death.worker-names-it",
    requirements=REFERENCE,
)
def worker_death_in_few_words(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar
        from reference_pool.errors import PoolError

        sidecar.WorkerDied = lambda text: PoolError("something went wrong")


@mutant(
    "All running jobs end with the error of the worker that died.",
    kills="death.worker-spares-innocents",
    requirements=REFERENCE,
)
def worker_death_fails_all_jobs(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.bury

        def bury(self: Any, one: Any) -> None:
            real(self, one)
            if one.job is not None:
                for other in self.workers.values():
                    if other.job is not None:
                        self.fail(other.job, sidecar.WorkerDied("the worker that did this job was killed"))

        sidecar.Sidecar.bury = bury


@mutant(
    "The result of an innocent job is lost when the worker of another dies.",
    kills="death.worker-spares-innocents",
    requirements=REFERENCE,
)
def worker_death_mutes_the_others(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        bury, tell = sidecar.Sidecar.bury, sidecar.Sidecar.tell
        muted: set[int] = set()

        def mute(self: Any, one: Any) -> None:
            bury(self, one)
            muted.update(other.job for other in self.workers.values() if other.job is not None)

        def tell_some(self: Any, kind: int, number: int, payload: bytes) -> None:
            if kind != frames.RESULT or number not in muted:
                tell(self, kind, number, payload)

        sidecar.Sidecar.bury, sidecar.Sidecar.tell = mute, tell_some


@mutant(
    "The place of a worker that died is not filled again.",
    kills=("death.worker", "death.idle-worker", "recovery.after-many-worker-deaths"),
    requirements=REFERENCE,
)
def place_of_the_dead_stays_empty(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.bury

        def bury(self: Any, one: Any) -> None:
            real(self, one)
            self.processes = max(1, self.processes - 1)

        sidecar.Sidecar.bury = bury


@mutant(
    "The end of an idle worker is not noticed: the next job is given to it.",
    kills="death.idle-worker",
    requirements=REFERENCE,
)
def idle_death_is_not_noticed(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.hear

        def hear(self: Any, one: Any, frame: Any) -> None:
            if frame is None and one.job is None:
                self.selector.unregister(one.link)
                return
            real(self, one, frame)

        sidecar.Sidecar.hear = hear


@mutant(
    "An idle worker that dies takes the sidecar with it.", kills="death.idle-worker", requirements=REFERENCE
)
def idle_death_ends_the_sidecar(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.bury

        def bury(self: Any, one: Any) -> None:
            real(self, one)
            if one.job is None:
                raise sidecar.Stop

        sidecar.Sidecar.bury = bury


@mutant(
    "Two hundred workers may die at birth before the pool gives up.",
    kills="death.workers-die-at-birth",
    requirements=REFERENCE,
)
def two_hundred_births(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        sidecar.BIRTHS = 200


@mutant(
    "Where workers die at birth nobody is told.", kills="death.workers-die-at-birth", requirements=REFERENCE
)
def births_are_given_up_silently(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        sidecar.Sidecar.give_up = lambda self, why: self.queue.clear()


@mutant(
    "Jobs whose sidecar has died get no answer.",
    kills=("death.sidecar-busy", "death.sidecar-busy-terminated", "death.sidecar-is-named"),
    requirements=REFERENCE,
)
def sidecar_death_is_not_told(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool
        from reference_pool.errors import SidecarDied

        real = ReferencePool._die

        def die(self: Any, error: Any) -> None:
            if isinstance(error, SidecarDied):
                self.pending.clear()
            real(self, error)

        ReferencePool._die = die


@mutant(
    "Of the jobs of a dead sidecar only the first is told.",
    kills="death.sidecar-busy",
    requirements=REFERENCE,
)
def sidecar_death_is_told_once(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool._die

        def die(self: Any, error: Any) -> None:
            for number in sorted(self.pending)[1:]:
                del self.pending[number]
            real(self, error)

        ReferencePool._die = die


@mutant(
    "A pool whose sidecar has died goes on taking jobs.",
    kills=("death.sidecar-idle", "recovery.dead-pool-is-not-offered", "recovery.after-sidecar-death"),
    requirements=REFERENCE,
)
def dead_sidecar_is_forgotten(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool
        from reference_pool.errors import SidecarDied

        real = ReferencePool._check

        def check(self: Any) -> None:
            if not isinstance(self.dead, SidecarDied):
                real(self)

        ReferencePool._check = check
        ReferencePool.running = property(lambda self: self.dead is None or isinstance(self.dead, SidecarDied))


@mutant(
    "At SIGTERM the sidecar falls silent and lives on.",
    kills=("death.sidecar-busy-terminated", "death.terminated-group"),
    requirements=REFERENCE,
)
def silent_at_sigterm(side: str) -> None:
    if side == "sidecar":
        signal.signal(signal.SIGTERM, lambda *_: time.sleep(1000))


@mutant(
    "The error for a dead sidecar says that the pool is closed, and no more.",
    kills="death.sidecar-is-named",
    requirements=REFERENCE,
)
def sidecar_death_in_few_words(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, pool

        ReferencePool._death = lambda self: pool.SidecarDied("the pool is closed")


@mutant(
    "A busy worker does not notice that its sidecar is gone.",
    kills="death.sidecar-takes-workers",
    requirements=REFERENCE,
)
def workers_outlive_the_sidecar(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        worker._PR_SET_PDEATHSIG = 0xBAD  # no option of prctl


@mutant(
    "The sidecar lives on when its parent is gone.",
    kills=("death.parent", "death.parent-that-forked"),
    requirements=REFERENCE,
)
def sidecar_outlives_its_parent(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        real = sidecar.Sidecar.attend

        def attend(self: Any, fd: int) -> None:
            if fd == self.link and (frame := frames.receive(fd)) is not None:
                self.obey(frame)
            elif fd in (self.link, self.parent):
                self.selector.unregister(fd)
            else:
                real(self, fd)

        sidecar.Sidecar.attend = attend


@mutant(
    "The sidecar sees the end of its parent only by the end of the link, which a child of the parent holds.",
    kills="death.parent-that-forked",
    requirements=REFERENCE,
)
def end_of_file_only(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.attend

        def attend(self: Any, fd: int) -> None:
            if fd == self.parent:
                self.selector.unregister(fd)
            else:
                real(self, fd)

        sidecar.Sidecar.attend = attend


@mutant(
    "A sidecar that gets SIGINT falls silent and lives on.",
    kills=("death.interrupt-while-starting", "death.interrupted-group"),
    requirements=REFERENCE,
)
def silent_at_sigint(side: str) -> None:
    if side == "sidecar":
        _handle_sigint_by(lambda *_: time.sleep(1000))


@mutant(
    "Ctrl-C ends the sidecar, also when it is ready.", kills="death.interrupted-group", requirements=REFERENCE
)
def interrupt_ends_the_sidecar(side: str) -> None:
    if side == "sidecar":
        _handle_sigint_by(signal.SIG_DFL)


@mutant(
    "Ctrl-C ends torch's sidecar and its workers, also when they are ready.",
    kills="death.interrupted-group",
    requirements=TORCH,
)
def interrupt_ends_torchs_sidecar(side: str) -> None:
    if side == "sidecar":
        _handle_sigint_by(signal.SIG_DFL)


def _handle_sigint_by(handler: Any) -> None:
    """Whoever means to ignore SIGINT gets that handler instead."""
    real = signal.signal

    def instead(number: int, action: Any) -> Any:
        ignores = number == signal.SIGINT and action == signal.SIG_IGN
        return real(number, handler if ignores else action)

    signal.signal = instead


@mutant(
    "Workers are of the sidecar's process group, and Ctrl-C ends them.",
    kills="death.interrupted-group",
    requirements=REFERENCE,
)
def interrupt_ends_the_workers(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.main

        def main(link: int, sidecar: int) -> None:
            os.setpgid = lambda pid, group: None
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            real(link, sidecar)

        worker.main = main


@mutant(
    "For each worker that dies two come back.",
    kills=("death.worker", "recovery.after-many-worker-deaths"),
    requirements=REFERENCE,
)
def two_for_each_that_dies(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.bury

        def bury(self, one):
            real(self, one)
            self.processes += 1
            self.fill()

        sidecar.Sidecar.bury = bury
