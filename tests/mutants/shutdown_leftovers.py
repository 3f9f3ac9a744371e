# SPDX-License-Identifier: Apache-2.0
"""Pools that leave something behind: processes, threads, descriptors, semaphores."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import time

from mutants import REFERENCE
from pytest_compilepool.conformance.mutant import mutant


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
