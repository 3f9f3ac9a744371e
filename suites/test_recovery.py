# SPDX-License-Identifier: Apache-2.0
"""After something has died: the next compile works, with a pool or without."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from pytest_compilepool import proctree
from pytest_compilepool.conformance.bench import BOUND, READY, Bench, Unanswered, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.suites.steps import all_serve, busy, end_sidecar
from pytest_compilepool.workloads import jobs

_SHUTDOWN = 15.0
"""Seconds that a shutdown may take when something in the pool does not play along."""


@feature("recovery.after-sidecar-death")
def test_after_sidecar_death(bench: Bench) -> None:
    bench.ready()
    bench.second_job()
    pid = end_sidecar(bench)
    deadline = time.monotonic() + BOUND
    tries, last = 0, "nothing"
    while time.monotonic() < deadline:
        tries += 1
        if not bench.requirements.offered():
            bench.note(f"try {tries}: a compile does not use the pool")
            return
        try:
            future = bench.requirements.current().submit(jobs.add, 20, 22)
        except Exception as error:
            last = f"{type(error).__name__}: {error}"
        else:
            told = bench.error_of(future, BOUND, f"the sidecar {pid} was killed; job {tries} after that")
            if told is None:
                check(future.result() == 42, f"job {tries} after the sidecar was killed got a wrong result")
                bench.note(f"try {tries} works")
                return
            last = f"{type(told).__name__}: {told}"
        time.sleep(0.1)
    raise AssertionError(
        f"{BOUND:g} s after the sidecar {pid} was killed a compile would still use its pool, and each of {tries} "
        f"jobs ended with an error; the last: {last}"
    )


@feature("recovery.dead-pool-is-not-offered")
def test_dead_pool_is_not_offered(bench: Bench) -> None:
    bench.ready()
    check(bench.requirements.offered(), "the pool is ready, and a compile would not use it")
    pid = end_sidecar(bench)
    new = "the pool of a dead sidecar is offered to the next compile"
    bench.until(lambda: not bench.requirements.offered(), BOUND, f"{new} (pid {pid})")


@feature("recovery.after-many-worker-deaths")
def test_after_many_worker_deaths(bench: Bench) -> None:
    bench.ready()
    for number in range(5):
        future = bench.submit(jobs.kill_self, 9)
        bench.error(future, BOUND, f"job {number + 1} of 5 that kill their worker")
    bench.second_job()
    all_serve(bench, "whole")

    def zombies() -> list[int]:
        return [row.pid for row in proctree.table().values() if row.parent == bench.sidecar and row.dead]

    bench.until(
        lambda: not zombies(), BOUND, f"workers that have died and that nobody waits for: {zombies()}"
    )


@feature("recovery.after-shutdown-of-a-dead-pool")
def test_after_shutdown_of_a_dead_pool(bench: Bench) -> None:
    pool = bench.ready()
    sent = busy(bench)
    end_sidecar(bench)
    _shutdown(bench, pool, "the shutdown of a pool whose sidecar was killed")
    bench.error(sent[0][1], BOUND, "a job of a pool that was shut down")
    _new_pool(bench)


@feature("recovery.no-late-thread-exception")
def test_no_late_thread_exception(bench: Bench) -> None:
    raised: list[str] = []

    def note(told: threading.ExceptHookArgs) -> None:
        name = told.thread.name if told.thread is not None else "a thread"
        raised.append(f"{name}: {told.exc_type.__name__}: {told.exc_value}")

    threading.excepthook = note
    bench.ready(2, idle_seconds=1.0)
    bench.second_job()
    end_sidecar(bench)
    # The timer looks every half second; it must have rung by then.
    deadline = time.monotonic() + 3.0
    while not raised and time.monotonic() < deadline:
        time.sleep(0.02)
    check(
        not raised,
        f"after the sidecar had died a thread of the parent ended with an exception: {'; '.join(raised)}",
    )


@feature("recovery.after-system-exit-and-quiesce")
def test_after_system_exit_and_quiesce(bench: Bench) -> None:
    pool = bench.ready()
    # Whether it has an answer is a promise of its own (submit.system-exit).
    future = bench.submit(jobs.raise_system_exit, 3)
    with contextlib.suppress(Unanswered):
        bench.error_of(future, 2.0)
    pool.quiesce()
    bench.second_job()
    _shutdown(bench, pool, "the shutdown of a pool in which a job had raised SystemExit before a quiesce")
    _new_pool(bench)


def _shutdown(bench: Bench, pool: object, what: str) -> None:
    """Bounded, and without an exception."""
    raised: list[BaseException] = []
    thread = threading.Thread(
        target=_keep_error, args=(bench.requirements.shutdown, pool, raised), daemon=True
    )
    began = time.monotonic()
    thread.start()
    thread.join(_SHUTDOWN)
    if thread.is_alive():
        raise Unanswered(f"{what} had not come to its end after {_SHUTDOWN:g} s")
    check(not raised, f"{what} raised {raised!r}")
    bench.note(f"shut down in {time.monotonic() - began:.2f} s")


def _keep_error(function: Callable[[object], None], argument: object, raised: list[BaseException]) -> None:
    try:
        function(argument)
    except BaseException as error:
        raised.append(error)


def _new_pool(bench: Bench) -> None:
    """A pool that is made now works."""
    bench.start()
    bench.wait_ready(READY)
    bench.second_job()
