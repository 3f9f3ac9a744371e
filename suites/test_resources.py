# SPDX-License-Identifier: Apache-2.0
"""Little is left: of descriptors, processes, memory. And a pool that works for long does not take more and more."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from pytest_compilepool import proctree
from pytest_compilepool.conformance.bench import BOUND, READY, Bench, Unanswered, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.suites.steps import all_serve
from pytest_compilepool.workloads import hostile, jobs

_MIB = 2**20


@feature("resources.too-few-descriptors")
def test_too_few_descriptors(bench: Bench) -> None:
    bench.inject(descriptors=8)
    _works_or_says(bench, 24, "the sidecar of 24 workers may open 8 descriptors more when it forks the first")


@feature("resources.fork-fails")
def test_fork_fails(bench: Bench) -> None:
    bench.inject(fork=1)
    _works_or_says(bench, 3, "the sidecar of 3 workers can fork once")


def _works_or_says(bench: Bench, processes: int, what: str) -> None:
    """Whoever waits for a job or for the pool gets an answer."""
    forks = Path(bench.file("forks"))
    bench.inject(threads=forks)
    bench.start(processes)
    future = bench.submit(jobs.add, 20, 22)
    # Until then it starts; how long that takes is another promise.
    bench.until(lambda: forks.exists() or future.done(), READY, f"{what}; it has forked no worker")
    error = bench.error_of(future, BOUND, f"{what}; a job")
    try:
        bench.wait_ready(BOUND)
    except Unanswered:
        raise
    except Exception as stands_in_the_way:
        bench.note(f"who waits for the pool is told {type(stands_in_the_way).__name__}: {stands_in_the_way}")
    if error is not None:
        bench.note(f"a job ends with {type(error).__name__}: {str(error)[:200]}")
        return
    check(future.result() == 42, f"{what}; a job got the result {future.result()!r}")
    bench.second_job()
    bench.note(f"{len(bench.workers())} workers")


@feature("resources.sidecar-out-of-memory")
def test_sidecar_out_of_memory(bench: Bench) -> None:
    limit = bench.requirements.too_little_memory
    bench.inject(memory=limit)
    bench.start()
    future = bench.submit(jobs.add, 1, 1)

    def over() -> bool:
        row = proctree.lookup(bench.sidecar)
        return future.done() or row is None or row.dead

    bench.until(over, READY, f"a sidecar with {limit // _MIB} MiB of memory has neither ended nor answered")
    try:
        bench.wait_ready(BOUND)
    except Unanswered:
        raise
    except Exception as error:
        bench.note(f"{type(error).__name__}: {str(error)[:200]}")
    else:
        raise AssertionError(
            f"a pool whose sidecar has but {limit // _MIB} MiB of memory says that it is ready"
        )
    bench.error(future, BOUND, "a job of a pool whose sidecar cannot start for want of memory")


@feature("resources.memory-error-of-a-job")
def test_memory_error_of_a_job(bench: Bench) -> None:
    bench.ready()
    before = set(bench.workers())
    error = bench.error(bench.submit(hostile.allocate_beyond_its_limit, 1024 * _MIB))
    told = f"{type(error).__name__}: {error}"
    check("MemoryError" in told, f"the error does not name MemoryError: {told}")
    bench.second_job()
    check(
        before & set(bench.workers()) == before, "a worker did not live on after a job had raised MemoryError"
    )


@feature("resources.sidecar-does-not-grow")
def test_sidecar_does_not_grow(bench: Bench) -> None:
    bench.ready()
    _jobs(bench, 20)
    before = _counts(bench.sidecar)
    _jobs(bench, 300)
    _comes_back(bench, bench.sidecar, before, "the sidecar")


@feature("resources.parent-threads-and-descriptors")
def test_parent_threads_and_descriptors(bench: Bench) -> None:
    bench.ready()
    _jobs(bench, 1)
    before = _counts(os.getpid())
    _jobs(bench, 300)
    _comes_back(bench, os.getpid(), before, "the parent")


def _jobs(bench: Bench, number: int) -> None:
    futures = [bench.submit(jobs.echo, one) for one in range(number)]
    found = [bench.answer(future, 30, f"one of {number} jobs") for future in futures]
    check(found == list(range(number)), f"of {number} jobs some got the result of another")


def _counts(pid: int) -> dict[str, int]:
    return {name: len(os.listdir(f"/proc/{pid}/{place}")) for name, place in _COUNTED.items()}


_COUNTED = {"descriptors": "fd", "threads": "task"}


def _comes_back(bench: Bench, pid: int, before: dict[str, int], who: str) -> None:
    """Not more than before: at once, or as soon as what is on its way has come to its end."""

    def more() -> dict[str, int]:
        return {name: count for name, count in _counts(pid).items() if count > before[name]}

    deadline = time.monotonic() + 2.0
    while (found := more()) and time.monotonic() < deadline:
        time.sleep(0.02)
    text = ", ".join(f"{before[name]} {name} before, {count} after" for name, count in found.items())
    check(not found, f"{who} (pid {pid}) has more than before 300 jobs: {text}")
    bench.note(", ".join(f"{count} {name}" for name, count in before.items()))


@feature("resources.worker-memory-does-not-grow")
def test_worker_memory_does_not_grow(bench: Bench) -> None:
    bench.ready()
    for _ in range(4):
        _large_jobs(bench, 50)
    before = _uss(bench)
    _large_jobs(bench, 500)
    after = _uss(bench)
    check(set(before) == set(after), f"the workers {sorted(before)} have become {sorted(after)}")
    grown = {pid: after[pid] - before[pid] for pid in before}
    text = ", ".join(
        f"pid {pid}: {before[pid] / _MIB:.1f} MiB, then {after[pid] / _MIB:.1f}" for pid in before
    )
    bench.note(text)
    check(sum(grown.values()) < 8 * _MIB, f"500 jobs with 64 KiB each made the workers grow: {text}")


def _large_jobs(bench: Bench, number: int) -> None:
    for begin in range(0, number, 50):
        futures = [bench.submit(jobs.echo, bytes([one % 251]) * 65536) for one in range(begin, begin + 50)]
        for one, future in enumerate(futures, begin):
            check(bench.answer(future)[:1] == bytes([one % 251]), "a job got the result of another")


def _uss(bench: Bench) -> dict[int, int]:
    found = {key.pid: proctree.memory(key.pid) for key in bench.workers()}
    return {pid: memory[0] for pid, memory in found.items() if memory is not None}


@feature("resources.many-jobs-queued")
def test_many_jobs_queued(bench: Bench) -> None:
    bench.ready()
    blockers = [
        bench.submit(jobs.touch_and_wait_for, bench.file(f"at{number}"), bench.file("go"), 40)
        for number in range(2)
    ]
    for number in range(2):
        bench.appears(f"at{number}")
    futures: list[Future[int]] = []
    longest = [0.0]

    def send() -> None:
        for number in range(5000):
            began = time.monotonic()
            futures.append(bench.submit(jobs.echo, number))
            longest[0] = max(longest[0], time.monotonic() - began)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    sent = -1
    while thread.is_alive() and len(futures) > sent:
        sent = len(futures)
        thread.join(BOUND)
    if thread.is_alive():
        text = f"after {len(futures)} queued jobs the next could not be sent in {BOUND:g} s"
        raise Unanswered(f"both workers are busy; {text}")
    jobs.touch(bench.file("go"))
    for blocker in blockers:
        bench.answer(blocker, BOUND, "a job in front of the queue")
    began = time.monotonic()
    wrong = [
        number for number, future in enumerate(futures) if bench.answer(future, 30, f"job {number}") != number
    ]
    check(not wrong, f"{len(wrong)} of 5000 queued jobs got another's result: {wrong[:5]}")
    bench.note(
        f"5000 answers in {time.monotonic() - began:.2f} s; the slowest submit took {longest[0]:.3f} s"
    )
    bench.second_job()


@feature("resources.output-of-a-job")
def test_output_of_a_job(bench: Bench) -> None:
    bench.ready()
    for number in range(2):
        what = f"job {number + 1} of 2 that write 1 MiB to standard output and to standard error"
        bench.answer(bench.submit(hostile.print_much, _MIB), BOUND, what)
    bench.second_job()
    before = set(bench.workers())
    for number in range(2):
        what = f"job {number + 1} of 2 that close standard output and standard error"
        bench.answer(bench.submit(hostile.close_output), BOUND, what)
    bench.second_job()
    all_serve(bench, "whole")
    check(
        before & set(bench.workers()) == before, "a worker did not live on after a job had closed its output"
    )
