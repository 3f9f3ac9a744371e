# SPDX-License-Identifier: Apache-2.0
"""Warm and ready."""

from __future__ import annotations

import os
import time

from pytest_compilepool import proctree
from pytest_compilepool.conformance.bench import BOUND, Bench, Unanswered, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs

_AT_ONCE = 2.0


@feature("warm.ready-when-a-worker-answered")
def test_ready_when_a_worker_answered(bench: Bench) -> None:
    began = time.monotonic()
    bench.ready()
    ready = time.monotonic() - began
    check(bench.workers(), "the pool says that it is ready, and there is no worker")
    pid, _, _ = bench.answer(bench.submit(jobs.whoami), _AT_ONCE, "the first job of a ready pool")
    check(pid != os.getpid(), "the first job of a ready pool ran in the process that sent it")
    check(bench.requirements.offered(), "the pool is ready, and a compile would not use it")
    bench.note(f"ready after {ready:.2f} s")


@feature("warm.all-workers-serve")
def test_all_workers_serve(bench: Bench) -> None:
    bench.ready(3)
    started = [f"started{number}" for number in range(3)]
    futures = [
        bench.submit(jobs.touch_and_wait_for, bench.file(name), bench.file("go"), 30) for name in started
    ]
    pids = {int(bench.appears(name)) for name in started}
    jobs.touch(bench.file("go"))
    check(len(pids) == 3, f"three jobs that wait for each other ran in {len(pids)} processes")
    check(
        {bench.answer(future) for future in futures} == pids,
        "a job answered from another process than it began in",
    )


@feature("warm.never-more-workers")
def test_never_more_workers(bench: Bench) -> None:
    bench.ready(2)
    futures = [bench.submit(jobs.sleep_after_touch, bench.file(f"at{n}"), 0.01) for n in range(100)]
    most, pids = 0, set()
    deadline = time.monotonic() + BOUND
    while not all(future.done() for future in futures) and time.monotonic() < deadline:
        most = max(most, len(bench.workers()))
    pids = {bench.answer(future) for future in futures}
    check(most <= 2, f"a pool of 2 had {most} live workers at one time")
    check(
        len(pids) <= 2,
        f"the jobs of a pool of 2 ran in {len(pids)} processes, none of which had ended before",
    )


@feature("warm.sidecar-cannot-start")
def test_sidecar_cannot_start(bench: Bench) -> None:
    _cannot_start(bench)
    error = bench.error(bench.submit(jobs.add, 1, 1), BOUND, "a job after a failed start")
    bench.note(f"a job says: {type(error).__name__}: {str(error)[:200]}")


@feature("warm.sidecar-cannot-start-says-why")
def test_sidecar_cannot_start_says_why(bench: Bench) -> None:
    told = _cannot_start(bench)
    told += str(bench.error_of(bench.submit(jobs.add, 1, 1), BOUND, "a job after a failed start"))
    check(
        "planted" in told or "status 77" in told,
        f"neither the exit status 77 nor what the sidecar said is in: {told}",
    )


def _cannot_start(bench: Bench) -> str:
    bench.inject(start=77)
    bench.start()
    try:
        bench.wait_ready(BOUND)
    except Unanswered:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    row = proctree.lookup(bench.sidecar)
    raise AssertionError(
        f"the pool says that it is ready; its sidecar is {'alive' if row and not row.dead else 'dead'}"
    )
