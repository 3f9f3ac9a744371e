# SPDX-License-Identifier: Apache-2.0
"""Pools that do not get over it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import Any

from mutants import REFERENCE
from pytest_compilepool import proctree
from pytest_compilepool.conformance.mutant import mutant


def _has_ended(pool: Any) -> bool:
    """Whether its sidecar has, seen as the scenario sees it: the thread that reads may be about to, and asks by way of
    a lock for which `poll()` does not wait."""
    row = proctree.lookup(pool.process.pid)
    return row is None or row.dead


@mutant(
    "A pool whose sidecar has died says that it is running.",
    kills=("recovery.dead-pool-is-not-offered", "recovery.after-sidecar-death"),
    requirements=REFERENCE,
)
def dead_pool_is_running(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        ReferencePool.running = property(lambda self: True)


@mutant(
    "A dead pool is made anew with workers that take no job.",
    kills="recovery.after-shutdown-of-a-dead-pool",
    requirements=REFERENCE,
)
def the_second_pool_is_deaf(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, frames

        real = ReferencePool._send
        first: list[Any] = []

        def send(self: Any, kind: int, number: int = 0, payload: bytes = b"") -> None:
            first[:] = first or [self]
            if self is first[0] or kind != frames.JOB:
                real(self, kind, number, payload)

        ReferencePool._send = send


@mutant(
    "Nobody waits for workers that have died.",
    kills=("recovery.after-many-worker-deaths", "death.idle-worker"),
    requirements=REFERENCE,
)
def zombies_stay(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        class Waiting:
            """`os`, whose waitpid looks and leaves what it sees."""

            def __getattr__(self, name: str) -> Any:
                return getattr(os, name)

            def waitpid(self, pid: int, options: int) -> tuple[int, int]:
                found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                return pid, found.si_status if found.si_code != os.CLD_EXITED else found.si_status << 8

        sidecar.os = Waiting()


@mutant(
    "The fourth worker that dies takes the sidecar with it.",
    kills="recovery.after-many-worker-deaths",
    requirements=REFERENCE,
)
def the_fourth_death_is_the_last(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.bury
        deaths: list[int] = []

        def bury(self: Any, one: Any) -> None:
            deaths.append(one.pid)
            real(self, one)
            if len(deaths) > 3:
                raise sidecar.Stop

        sidecar.Sidecar.bury = bury


@mutant(
    "The shutdown of a pool whose sidecar is dead raises.",
    kills="recovery.after-shutdown-of-a-dead-pool",
    requirements=REFERENCE,
)
def shutdown_of_a_dead_pool_raises(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.shutdown

        def shutdown(self: Any) -> None:
            dead = _has_ended(self)
            real(self)
            if dead:
                raise subprocess.TimeoutExpired("sidecar", 300)

        ReferencePool.shutdown = shutdown


@mutant(
    "The shutdown of a pool whose sidecar is dead waits for its answer.",
    kills="recovery.after-shutdown-of-a-dead-pool",
    requirements=REFERENCE,
)
def shutdown_waits_for_the_dead(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.shutdown

        def shutdown(self: Any) -> None:
            if _has_ended(self):
                time.sleep(100)
            real(self)

        ReferencePool.shutdown = shutdown


@mutant(
    "The thread that reads ends with an exception when the sidecar dies.",
    kills="recovery.no-late-thread-exception",
    requirements=REFERENCE,
)
def reader_ends_with_an_exception(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool._read

        def read(self: Any) -> None:
            real(self)
            raise EOFError("the sidecar has closed its link")

        ReferencePool._read = read


@mutant(
    "The idle timer of the parent rings on a dead pool, and raises.",
    kills="recovery.no-late-thread-exception",
    requirements=REFERENCE,
)
def timer_rings_on_a_dead_pool(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool.submit

        def submit(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            timer = threading.Timer(1.5, self.quiesce)
            timer.daemon = True
            timer.start()
            return real(self, function, *args, **kwargs)

        ReferencePool.submit = submit


@mutant(
    "A sidecar that was quiesced after SystemExit does not end when it is told to.",
    kills="recovery.after-system-exit-and-quiesce",
    requirements=REFERENCE,
)
def shutdown_after_system_exit_hangs(side: str) -> None:
    from reference_pool import frames, pool, sidecar

    # As torch: five minutes of patience in the parent.
    pool.SHUTDOWN_SECONDS = 300.0
    if side == "sidecar":
        tell, obey = sidecar.Sidecar.tell, sidecar.Sidecar.obey
        seen: set[str] = set()

        def note(self: Any, kind: int, number: int, payload: bytes) -> None:
            if kind == frames.ERROR and b"SystemExit" in payload:
                seen.add("exit")
            tell(self, kind, number, payload)

        def hang(self: Any, frame: Any) -> None:
            if frame is not None and frame[0] == frames.QUIESCE and "exit" in seen:
                seen.add("quiesce")
            if "quiesce" in seen and (frame is None or frame[0] == frames.SHUTDOWN):
                signal.pause()
            obey(self, frame)

        sidecar.Sidecar.tell, sidecar.Sidecar.obey = note, hang


@mutant(
    "A job that raises SystemExit leaves a worker that takes no more jobs.",
    kills="recovery.after-system-exit-and-quiesce",
    requirements=REFERENCE,
)
def quiesce_after_system_exit_leaves_no_pool(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        tell, obey = sidecar.Sidecar.tell, sidecar.Sidecar.obey
        seen: list[int] = []

        def note(self: Any, kind: int, number: int, payload: bytes) -> None:
            if kind == frames.ERROR and b"SystemExit" in payload:
                seen.append(number)
            tell(self, kind, number, payload)

        def deaf(self: Any, frame: Any) -> None:
            if frame is None or frame[0] != frames.JOB or not seen:
                obey(self, frame)

        sidecar.Sidecar.tell, sidecar.Sidecar.obey = note, deaf
