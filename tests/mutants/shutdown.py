# SPDX-License-Identifier: Apache-2.0
"""Pools that do not end, or that end too late. `shutdown_leftovers` has those that leave something behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "shutdown() says that the pool is over, and leaves it at that.",
    kills=("shutdown.idle", "shutdown.ends-its-threads", "shutdown.gives-back-descriptors"),
    requirements=REFERENCE,
)
def only_says_so(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool
        from reference_pool.errors import PoolClosed

        ReferencePool.shutdown = lambda self: self._die(PoolClosed("the pool was shut down"))


@mutant("shutdown() of an idle pool ends with an error.", kills="shutdown.idle", requirements=REFERENCE)
def raises(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.shutdown

        def shutdown(self: ReferencePool) -> None:
            real(self)
            raise subprocess.TimeoutExpired("sidecar", 300)

        ReferencePool.shutdown = shutdown


@mutant(
    "shutdown() waits for the jobs that run, as torch's does up to 2.12.",
    kills=("shutdown.busy", "shutdown.at-exit", "shutdown.after-quiesce-with-a-running-job"),
    requirements=REFERENCE,
)
def waits_for_jobs(side: str) -> None:
    from reference_pool import pool, sidecar

    if side == "parent":
        pool.SHUTDOWN_SECONDS = 300.0
        return
    real = sidecar.Sidecar.end_workers

    def end_workers(self: sidecar.Sidecar) -> None:
        for one in list(self.workers.values()):
            if one.job is not None:
                self.dismiss(one)
        real(self)

    sidecar.Sidecar.end_workers = end_workers


@mutant(
    "torch's sidecar lets its executor end by itself, as up to 2.12.",
    kills="shutdown.busy",
    requirements=TORCH,
)
def torch_waits_for_jobs(side: str) -> None:
    if side == "sidecar":
        from torch._inductor.compile_worker import subproc_pool

        subproc_pool._terminate_process_pool = lambda pool: pool.shutdown(wait=True)


@mutant("shutdown() forgets who waits for a job.", kills="shutdown.busy", requirements=REFERENCE)
def forgets_who_waits(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.shutdown

        def shutdown(self: ReferencePool) -> None:
            self.pending.clear()
            real(self)

        ReferencePool.shutdown = shutdown


@mutant(
    "The sidecar asks its workers to end by SIGTERM, and waits for them as long as it takes.",
    kills="shutdown.wedged-worker",
    requirements=REFERENCE,
)
def asks_only(side: str) -> None:
    from reference_pool import pool, sidecar

    if side == "parent":
        pool.SHUTDOWN_SECONDS = 300.0
        return

    def end_workers(self: sidecar.Sidecar) -> None:
        for one in list(self.workers.values()):
            os.kill(one.pid, signal.SIGTERM)
            self.dismiss(one)

    sidecar.Sidecar.end_workers = end_workers


@mutant("A second shutdown() is an error.", kills="shutdown.twice", requirements=REFERENCE)
def second_raises(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.shutdown

        def shutdown(self: ReferencePool) -> None:
            if self.dead is not None:
                raise RuntimeError("the pool was shut down before")
            real(self)

        ReferencePool.shutdown = shutdown


@mutant(
    "A second shutdown() waits for a sidecar that has gone.", kills="shutdown.twice", requirements=REFERENCE
)
def second_waits(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.shutdown

        def shutdown(self: ReferencePool) -> None:
            if self.dead is not None:
                time.sleep(10)
            real(self)

        ReferencePool.shutdown = shutdown


@mutant(
    "A pool that was shut down takes jobs, which nobody does.",
    kills="shutdown.submit-after-is-refused",
    requirements=REFERENCE,
)
def takes_jobs_after(side: str) -> None:
    if side == "parent":
        from concurrent.futures import Future

        from reference_pool import ReferencePool

        real = ReferencePool.submit
        ReferencePool.submit = lambda self, *args, **kwargs: (
            real(self, *args, **kwargs) if self.dead is None else Future()
        )


@mutant(
    "A job that is refused stays among those that are pending, as with torch.",
    kills="shutdown.submit-after-is-refused",
    requirements=REFERENCE,
)
def refused_and_kept(side: str) -> None:
    if side == "parent":
        from concurrent.futures import Future

        from reference_pool import ReferencePool

        real = ReferencePool.submit

        def submit(self, *args, **kwargs):
            if self.dead is not None:
                self.pending[0] = Future()
            return real(self, *args, **kwargs)

        ReferencePool.submit = submit


@mutant(
    "A pool that was shut down says that it runs, and so is offered to the next compile.",
    kills=("shutdown.idle", "shutdown.new-pool-after"),
    requirements=REFERENCE,
)
def offered_for_ever(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        ReferencePool.running = property(lambda self: True)


@mutant("torch keeps the pool that was shut down.", kills="shutdown.new-pool-after", requirements=TORCH)
def torch_keeps_the_old_one(side: str) -> None:
    if side == "parent":
        from torch._inductor import async_compile

        async_compile.after_fork = lambda: None


@mutant("The thread that reads keeps its process alive.", kills="shutdown.at-exit", requirements=REFERENCE)
def reader_is_no_daemon(side: str) -> None:
    if side == "parent":
        from reference_pool import pool

        class Threading:
            def __getattr__(self, name: str) -> object:
                return getattr(threading, name)

            def Thread(self, **arguments: object) -> threading.Thread:
                return threading.Thread(**{**arguments, "daemon": False})

        pool.threading = Threading()


@mutant(
    "Nothing is done at the end of a program, and the sidecar does not look whether its parent is there.",
    kills=("shutdown.at-exit", "shutdown.in-a-multiprocessing-child"),
    requirements=REFERENCE,
)
def nothing_at_exit(side: str) -> None:
    from reference_pool import pool, sidecar

    if side == "parent":
        import atexit

        real = pool.ReferencePool.__init__

        def init(self: pool.ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            atexit.unregister(self.shutdown)
            self.finalizer.cancel()

        pool.ReferencePool.__init__ = init
        return

    def stay(self: sidecar.Sidecar) -> None:
        time.sleep(60)

    sidecar.Sidecar.end_workers = stay


@mutant("The end of a program complains.", kills="shutdown.at-exit", requirements=REFERENCE)
def complains_at_exit(side: str) -> None:
    if side == "parent":
        import atexit

        from reference_pool import ReferencePool

        def complain() -> None:
            raise RuntimeError("planted")

        real = ReferencePool.__init__

        def init(self: ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            atexit.register(complain)

        ReferencePool.__init__ = init


@mutant(
    "After a quiesce the sidecar no longer ends the workers that had a job then, and waits for them, as torch's does.",
    kills="shutdown.after-quiesce-with-a-running-job",
    requirements=REFERENCE,
)
def waits_for_an_old_generation(side: str) -> None:
    from reference_pool import pool, sidecar

    if side == "parent":
        pool.SHUTDOWN_SECONDS = 300.0
        return
    real_quiesce, real_end = sidecar.Sidecar.quiesce, sidecar.Sidecar.end_workers
    old: list[sidecar.Worker] = []

    def quiesce(self: sidecar.Sidecar) -> None:
        real_quiesce(self)
        old.extend(self.workers.values())

    def end_workers(self: sidecar.Sidecar) -> None:
        for one in old:
            if one.link in self.workers:
                self.dismiss(one)
        real_end(self)

    sidecar.Sidecar.quiesce, sidecar.Sidecar.end_workers = quiesce, end_workers
