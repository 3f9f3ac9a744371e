# SPDX-License-Identifier: Apache-2.0
"""Workers that stay, that go too soon, that remember, or that cost something."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant("quiesce() does nothing.", kills="quiesce.workers-go", requirements=REFERENCE)
def nothing(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        ReferencePool.quiesce = lambda self: None


@mutant("quiesce() does nothing in torch's pool.", kills="quiesce.workers-go", requirements=TORCH)
def nothing_in_torch(side: str) -> None:
    if side == "parent":
        from torch._inductor.compile_worker.subproc_pool import SubprocPool

        SubprocPool.quiesce = lambda self: None


@mutant("The sidecar goes with its workers.", kills="quiesce.workers-go", requirements=REFERENCE)
def sidecar_goes(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        def quiesce(self: sidecar.Sidecar) -> None:
            raise sidecar.Stop

        sidecar.Sidecar.quiesce = quiesce


@mutant("One worker stays.", kills=("quiesce.workers-go", "quiesce.fresh-workers"), requirements=REFERENCE)
def one_stays(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        def quiesce(self: sidecar.Sidecar) -> None:
            self.awake = False
            for one in list(self.workers.values())[1:]:
                if one.job is None and not self.queue:
                    self.dismiss(one)

        sidecar.Sidecar.quiesce = quiesce


@mutant("A quiesce kills the jobs that run.", kills="quiesce.in-flight-jobs-finish", requirements=REFERENCE)
def kills_running_jobs(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        def quiesce(self: sidecar.Sidecar) -> None:
            for one in self.workers.values():
                os.kill(one.pid, signal.SIGKILL)

        sidecar.Sidecar.quiesce = quiesce


@mutant(
    "A quiesce forgets the jobs that are queued.",
    kills="quiesce.in-flight-jobs-finish",
    requirements=REFERENCE,
)
def forgets_queued_jobs(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.quiesce

        def quiesce(self: sidecar.Sidecar) -> None:
            self.queue.clear()
            real(self)

        sidecar.Sidecar.quiesce = quiesce


@mutant(
    "A worker that had a job when the pool was quiesced stays after it.",
    kills="quiesce.in-flight-jobs-finish",
    requirements=REFERENCE,
)
def busy_workers_stay(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.quiesce

        def quiesce(self: sidecar.Sidecar) -> None:
            real(self)
            self.awake = True

        sidecar.Sidecar.quiesce = quiesce


@mutant(
    "A job does not wake a quiesced pool; only wakeup() does.",
    kills="quiesce.next-job-wakes",
    requirements=REFERENCE,
)
def jobs_do_not_wake(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        real = sidecar.Sidecar.obey

        def obey(self: sidecar.Sidecar, frame: tuple[int, int, bytes] | None) -> None:
            if frame is not None and frame[0] == frames.JOB and not self.workers:
                self.queue.append(frame[1:])
            else:
                real(self, frame)

        sidecar.Sidecar.obey = obey


@mutant("wakeup() brings one worker.", kills="quiesce.wakeup-brings-all", requirements=REFERENCE)
def wakeup_brings_one(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        real = sidecar.Sidecar.obey

        def obey(self: sidecar.Sidecar, frame: tuple[int, int, bytes] | None) -> None:
            if frame is not None and frame[0] == frames.WAKEUP:
                self.awake = True
                self.fork()
            else:
                real(self, frame)

        sidecar.Sidecar.obey = obey


@mutant("wakeup() brings a worker too many.", kills="quiesce.wakeup-brings-all", requirements=REFERENCE)
def wakeup_brings_too_many(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        real = sidecar.Sidecar.obey

        def obey(self: sidecar.Sidecar, frame: tuple[int, int, bytes] | None) -> None:
            real(self, frame)
            if frame is not None and frame[0] == frames.WAKEUP:
                self.fork()

        sidecar.Sidecar.obey = obey


@mutant(
    "A quiesce does not wait for the jobs of a generation before the next begins, as torch's does not.",
    kills="quiesce.never-more-workers",
    requirements=REFERENCE,
)
def generations_overlap(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.quiesce

        def quiesce(self: sidecar.Sidecar) -> None:
            real(self)
            self.processes += len(self.workers)

        sidecar.Sidecar.quiesce = quiesce


@mutant(
    "A generation leaves a descriptor in the sidecar.", kills="quiesce.fifty-cycles", requirements=REFERENCE
)
def leaves_a_descriptor(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.quiesce

        def quiesce(self: sidecar.Sidecar) -> None:
            real(self)
            os.dup(0)

        sidecar.Sidecar.quiesce = quiesce


@mutant("A generation leaves a thread in the sidecar.", kills="quiesce.fifty-cycles", requirements=REFERENCE)
def leaves_a_thread(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.quiesce

        def quiesce(self: sidecar.Sidecar) -> None:
            real(self)
            threading.Thread(target=threading.Event().wait, daemon=True).start()

        sidecar.Sidecar.quiesce = quiesce


@mutant(
    "The sidecar looks for something to do every ten milliseconds.",
    kills="quiesce.idle-costs-nothing",
    requirements=REFERENCE,
)
def sidecar_polls(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.patience

        def patience(self: sidecar.Sidecar) -> float | None:
            seconds = real(self)
            return 0.01 if seconds is None else min(seconds, 0.01)

        sidecar.Sidecar.patience = patience


@mutant(
    "A worker without a job looks for one a hundred times a second.",
    kills="quiesce.idle-costs-nothing",
    requirements=REFERENCE,
)
def workers_poll(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames

        def poll(fd: int) -> None:
            while not select.select([fd], [], [], 0.01)[0]:
                pass

        real = frames.receive

        def receive(fd: int) -> tuple[int, int, bytes] | None:
            poll(fd)
            return real(fd)

        frames.receive = receive


@mutant(
    "A thread of torch's sidecar looks every ten milliseconds.",
    kills="quiesce.idle-costs-nothing",
    requirements=TORCH,
)
def torch_polls(side: str) -> None:
    if side == "sidecar":

        def poll() -> None:
            while True:
                time.sleep(0.01)

        threading.Thread(target=poll, daemon=True).start()


@mutant(
    "A helper of the pool, beside the sidecar, looks every ten milliseconds.",
    kills="quiesce.idle-costs-nothing",
    requirements=REFERENCE,
)
def helper_polls(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.__init__
        poll = "import os, time\nwhile os.getppid() == int(__import__('sys').argv[1]): time.sleep(0.01)"

        def init(self: ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            subprocess.Popen([sys.executable, "-S", "-c", poll, str(os.getpid())])

        ReferencePool.__init__ = init


@mutant(
    "The sidecar does not wait for workers that have gone.",
    kills="quiesce.leaves-no-zombies",
    requirements=REFERENCE,
)
def zombies(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        sidecar.Sidecar.dismiss = sidecar.Sidecar.drop


@mutant("The idle timer never fires.", kills="quiesce.by-itself-when-idle", requirements=REFERENCE)
def timer_never_fires(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        sidecar.Sidecar.patience = lambda self: None


@mutant(
    "The idle timer fires after a tenth of its time.",
    kills="quiesce.by-itself-when-idle",
    requirements=REFERENCE,
)
def timer_fires_early(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.__init__

        def init(
            self: sidecar.Sidecar, link: int, processes: int, parent: int, quiesce_after: float | None
        ) -> None:
            real(self, link, processes, parent, None if quiesce_after is None else quiesce_after / 10)

        sidecar.Sidecar.__init__ = init


@mutant(
    "The idle timer takes a long job for idleness and kills it.",
    kills="quiesce.by-itself-when-idle",
    requirements=REFERENCE,
)
def timer_kills_a_long_job(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        def busy(self: sidecar.Sidecar) -> bool:
            return bool(self.queue)

        def maybe_quiesce(self: sidecar.Sidecar) -> None:
            if self.patience() == 0.0:
                for one in self.workers.values():
                    os.kill(one.pid, signal.SIGKILL)

        sidecar.Sidecar.busy, sidecar.Sidecar.maybe_quiesce = busy, maybe_quiesce


@mutant(
    "The sidecar loads what it sends on, and so its workers inherit what that imports.",
    kills="quiesce.fresh-workers",
    requirements=REFERENCE,
)
def sidecar_loads_jobs(side: str) -> None:
    if side == "sidecar":
        import pickle

        from reference_pool import frames, sidecar, worker

        real = sidecar.Sidecar.obey

        def obey(self: sidecar.Sidecar, frame: tuple[int, int, bytes] | None) -> None:
            if frame is not None and frame[0] == frames.JOB:
                surroundings, job = pickle.loads(frame[2])
                worker.take_over(surroundings)
                pickle.loads(job)
            real(self, frame)

        sidecar.Sidecar.obey = obey


@mutant(
    "The workers are stopped and go on later, instead of new ones being forked.",
    kills="quiesce.workers-go",
    requirements=REFERENCE,
)
def stopped_instead(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        real = sidecar.Sidecar.obey

        def quiesce(self: sidecar.Sidecar) -> None:
            for one in self.workers.values():
                os.kill(one.pid, signal.SIGSTOP)

        def obey(self: sidecar.Sidecar, frame: tuple[int, int, bytes] | None) -> None:
            if frame is not None and frame[0] in (frames.JOB, frames.WAKEUP):
                for one in self.workers.values():
                    os.kill(one.pid, signal.SIGCONT)
            real(self, frame)

        sidecar.Sidecar.quiesce, sidecar.Sidecar.obey = quiesce, obey
