# SPDX-License-Identifier: Apache-2.0
"""Pools that do not end, that end too late, or that leave something behind."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
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
    "A pool tells multiprocessing of shared memory that nobody gives back.",
    kills="shutdown.in-a-multiprocessing-child",
    requirements=REFERENCE,
)
def leaks_in_a_child(side: str) -> None:
    if side == "parent":
        from multiprocessing import resource_tracker

        from reference_pool import ReferencePool

        real = ReferencePool.__init__

        def init(self: ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            resource_tracker.register(f"/compilepool-mutant-{os.getpid()}", "shared_memory")

        ReferencePool.__init__ = init


@mutant(
    "The sidecar ends its workers and not what their jobs have started.",
    kills="shutdown.takes-grandchildren",
    requirements=REFERENCE,
)
def leaves_grandchildren(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        def end_workers(self: sidecar.Sidecar) -> None:
            for one in list(self.workers.values()):
                os.kill(one.pid, signal.SIGKILL)
                self.dismiss(one)

        sidecar.Sidecar.end_workers = end_workers


@mutant(
    "A timer sleeps through the end of its pool, as torch's does.",
    kills="shutdown.ends-its-threads",
    requirements=REFERENCE,
)
def timer_outlives_the_pool(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.__init__

        def init(self: ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            threading.Thread(target=time.sleep, args=(30,), name="planted-timer", daemon=True).start()

        ReferencePool.__init__ = init


@mutant(
    "A thread of which `threading` knows nothing outlives the pool.",
    kills="shutdown.ends-its-threads",
    requirements=REFERENCE,
)
def raw_thread_outlives_the_pool(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.__init__

        def init(self: ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            _thread.start_new_thread(lambda: time.sleep(30), ())

        ReferencePool.__init__ = init


@mutant(
    "The sidecar's end of the link stays open in the parent, as torch's did up to 2.13.",
    kills="shutdown.gives-back-descriptors",
    requirements=REFERENCE,
)
def keeps_a_descriptor(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.__init__

        def init(self: ReferencePool, *args: object, **kwargs: object) -> None:
            real(self, *args, **kwargs)
            os.dup(self.said.fileno())

        ReferencePool.__init__ = init


@mutant(
    "A helper process of the pool's outlives it.",
    kills="shutdown.gives-back-semaphores",
    requirements=REFERENCE,
)
def leaves_a_helper(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.run

        def run(self: sidecar.Sidecar) -> None:
            real(self)
            subprocess.Popen(
                [sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=False
            )

        sidecar.Sidecar.run = run


@mutant(
    "The sidecar leaves a semaphore that has a name.",
    kills="shutdown.gives-back-semaphores",
    requirements=REFERENCE,
)
def leaves_a_semaphore(side: str) -> None:
    from reference_pool import sidecar

    if side == "parent":
        name = f"/dev/shm/sem.compilepool-mutant-{os.getpid()}"
        leave = os._exit

        def tidy(status: int) -> None:
            """The scenario has seen it: nothing of it is to be left on this machine."""
            if os.path.exists(name):
                os.unlink(name)
            leave(status)

        os._exit = tidy
        return
    real = sidecar.Sidecar.run

    def run(self: sidecar.Sidecar) -> None:
        with open(f"/dev/shm/sem.compilepool-mutant-{os.getppid()}", "wb"):
            pass
        real(self)

    sidecar.Sidecar.run = run


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


@mutant(
    "The shutdown closes a descriptor that is not the pool's.",
    kills="shutdown.gives-back-descriptors",
    requirements=REFERENCE,
)
def closes_one_too_many(side: str) -> None:
    if side == "parent":
        import os

        from reference_pool import ReferencePool

        victim = os.open("/dev/zero", os.O_RDONLY)
        real = ReferencePool.shutdown

        def shutdown(self):
            real(self)
            os.close(victim)

        ReferencePool.shutdown = shutdown
