# SPDX-License-Identifier: Apache-2.0
"""Something dies: a worker, the sidecar, the parent. Whoever waits is told, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from pytest_compilepool import proctree
from pytest_compilepool.conformance.bench import BOUND, READY, Bench, Other, Unanswered, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.suites.steps import LONG, all_serve, busy, end_sidecar
from pytest_compilepool.workloads import jobs

_JOBS_OF_THE_DYING = 4


# -- a worker ---------------------------------------------------------------------------------------------


@feature("death.worker")
def test_worker(bench: Bench) -> None:
    error = _kill_a_worker(bench)
    bench.note(f"the job says: {type(error).__name__}: {str(error)[:200]}")
    bench.second_job()
    all_serve(bench, "whole")


@feature("death.worker-names-it")
def test_worker_names_it(bench: Bench) -> None:
    error = _kill_a_worker(bench)
    told = f"{type(error).__name__}: {error}"
    who = re.search(r"process|worker|\bpid\b", told, re.IGNORECASE)
    how = re.search(r"terminated|killed|died|dead|crashed|exited|SIGKILL|signal|-9\b", told, re.IGNORECASE)
    check(who and how, f"the error does not say that a process or a worker has ended: {told}")


def _kill_a_worker(bench: Bench) -> BaseException:
    """Kill the worker of a running job. Returns what the job ended with."""
    bench.ready()
    future = bench.submit(jobs.sleep_after_touch, bench.file("at"), LONG)
    bench.kill(int(bench.appears("at")))
    return bench.error(future, BOUND, "the job whose worker was killed")


@feature("death.worker-spares-innocents")
def test_worker_spares_innocents(bench: Bench) -> None:
    bench.ready()
    guilty = bench.submit(jobs.sleep_after_touch, bench.file("guilty"), LONG)
    innocent = bench.submit(jobs.touch_and_wait_for, bench.file("innocent"), bench.file("go"), 30)
    pid = int(bench.appears("innocent"))
    killed = int(bench.appears("guilty"))
    bench.kill(killed)
    bench.error(guilty, BOUND, "the job whose worker was killed")
    jobs.touch(bench.file("go"))
    error = bench.error_of(innocent, BOUND, "the job in the other worker")
    told = f"{type(error).__name__}: {error}"
    spared = error is None or re.search(
        r"collateral|another (job|worker|process)|other (job|worker|process)", told, re.IGNORECASE
    )
    check(
        spared,
        f"the worker {killed} of one job was killed; the job in worker {pid} ended with an error that does not "
        f"say that another was to blame: {told}",
    )
    check(error is not None or innocent.result() == pid, "the job in the other worker got a wrong result")
    bench.second_job()


@feature("death.idle-worker")
def test_idle_worker(bench: Bench) -> None:
    bench.ready()
    bench.second_job()
    before = bench.workers()
    check(before, "a ready pool has no worker")
    bench.kill(before[0].pid)
    # Waited for by the pool: from then on it knows.
    what = f"the idle worker {before[0].pid} was killed and nobody has waited for it"
    bench.until(lambda: proctree.reaped(before[0]), BOUND, what)
    bench.second_job()
    pids = all_serve(bench, "whole")
    check(before[0].pid not in pids, "a job says that it ran in the worker that was killed")


@feature("death.workers-die-at-birth")
def test_workers_die_at_birth(bench: Bench) -> None:
    births = Path(bench.file("births"))
    bench.inject(birth=births)
    bench.start(2)
    future = bench.submit(jobs.add, 1, 1)
    bench.until(lambda: births.exists() or future.done(), READY, "no worker was forked for a job")
    # Some: how often torch forks for one is a matter of luck.
    for number in range(_JOBS_OF_THE_DYING):
        bench.error(future, BOUND, f"job {number + 1} of a pool whose workers die at birth")
        future = bench.submit(jobs.add, 1, 1)
    bench.error(future, BOUND, "the last job of a pool whose workers die at birth")
    allowed = 10 * 2 * (_JOBS_OF_THE_DYING + 1)
    # What goes on forking would be seen here, however slowly: until there was no fork for a second.
    forks, until = _lines(births), time.monotonic() + 1.0
    while forks <= allowed and time.monotonic() < until:
        time.sleep(0.02)
        if (now := _lines(births)) > forks:
            forks, until = now, time.monotonic() + 1.0
    bench.note(f"{forks} forks for {_JOBS_OF_THE_DYING + 1} jobs")
    check(
        forks <= allowed,
        f"{forks} workers were forked for {_JOBS_OF_THE_DYING + 1} jobs and 2 workers; {allowed} are allowed",
    )


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


# -- the sidecar ------------------------------------------------------------------------------------------


@feature("death.sidecar-busy")
def test_sidecar_busy(bench: Bench) -> None:
    bench.ready()
    sent = busy(bench, running=2, queued=2)
    end_sidecar(bench)
    for what, future in sent:
        bench.error(future, BOUND, f"the sidecar was killed; {what}")


@feature("death.sidecar-busy-terminated")
def test_sidecar_busy_terminated(bench: Bench) -> None:
    bench.ready()
    future = bench.submit(jobs.sleep_after_touch, bench.file("at"), 3.0)
    pid = int(bench.appears("at"))
    bench.kill(bench.sidecar, signal.SIGTERM)
    error = bench.error_of(future, BOUND, "the sidecar got SIGTERM; a running job")
    row = proctree.lookup(bench.sidecar)
    if error is None:
        # It may well choose to live on.
        check(future.result() == pid, "a job that ran while the sidecar got SIGTERM has a wrong result")
        check(row is not None and not row.dead, "a job has a result that its dead sidecar cannot have sent")
        bench.second_job()


@feature("death.sidecar-idle")
def test_sidecar_idle(bench: Bench) -> None:
    bench.ready()
    bench.second_job()
    pid = end_sidecar(bench)
    for which in ("the next job", "the job after that"):
        # The first may have been sent before anybody had noticed; the second was not.
        what = f"the idle sidecar {pid} was killed; {which}"
        began = time.monotonic()
        error = bench.error_of(bench.submit(jobs.add, 20, 22), BOUND, what)
        took = time.monotonic() - began
        if took > BOUND + 1:
            raise Unanswered(f"{what}: sending it took {took:.1f} s")
    bench.note("the jobs after that work" if error is None else f"{type(error).__name__}: {str(error)[:200]}")


@feature("death.sidecar-is-named")
def test_sidecar_is_named(bench: Bench) -> None:
    bench.ready()
    sent = busy(bench)
    pid = end_sidecar(bench)
    error = bench.error(sent[0][1], BOUND, f"the sidecar was killed; {sent[0][0]}")
    told = f"{type(error).__name__}: {error}"
    named = re.search(rf"\b{pid}\b|SIGKILL|signal 9\b|-9\b|\b137\b", told)
    check(named, f"neither the sidecar's pid {pid} nor SIGKILL is in the error: {told}")


@feature("death.sidecar-takes-workers")
def test_sidecar_takes_workers(bench: Bench) -> None:
    bench.ready(2)
    bench.second_job()
    busy(bench)
    workers = bench.workers()
    check(len(workers) == 2, f"a pool of 2 with a job has {len(workers)} workers")
    end_sidecar(bench)
    at = Path(bench.file("busy0")).read_text(encoding="utf-8")
    bench.gone(workers, BOUND, f"workers of a killed sidecar ({at} has a job, the other has none)")


# -- the parent -------------------------------------------------------------------------------------------


@feature("death.parent")
def test_parent(bench: Bench) -> None:
    other = bench.other(busy_parent)
    other.appears("busy")
    below = _below(other)
    _kill_parent(bench, other, below)


@feature("death.parent-that-forked")
def test_parent_that_forked(bench: Bench) -> None:
    other = bench.other(busy_parent, fork="yes")
    child = int(other.appears("busy"))
    below = [key for key in _below(other) if key.pid != child]
    try:
        _kill_parent(bench, other, below)
        check(proctree.lookup(child) is not None, "the parent's child ended before its time")
    finally:
        jobs.touch(str(other.folder / "end"))


def _below(other: Other) -> list[ProcessKey]:
    return [row.key for row in proctree.descendants(other.process.pid) if not row.dead]


def _kill_parent(bench: Bench, other: Other, below: list[ProcessKey]) -> None:
    check(len(below) >= 3, f"an interpreter with a pool of 2 has {len(below)} processes below it")
    other.process.kill()
    other.ends(BOUND, "after SIGKILL")
    began = time.monotonic()
    bench.gone(below, BOUND, "sidecar and workers of a killed parent")
    bench.note(f"gone after {time.monotonic() - began:.2f} s")


def busy_parent(bench: Bench, fork: str = "") -> None:
    """In another interpreter: a pool that is busy, until somebody ends it; with `fork` it has a child that lives on."""
    bench.ready(2)
    busy(bench)
    child = os.fork() if fork else None
    if child == 0:
        _wait_or_leave(bench.file("end"))
    jobs.touch(bench.file("busy"), str(child))
    _wait_or_leave(bench.file("never"))


def _wait_or_leave(file: str) -> None:
    try:
        jobs.wait_for(file, LONG)
    finally:
        os._exit(0)


# -- signals ----------------------------------------------------------------------------------------------


@feature("death.interrupt-while-starting")
def test_interrupt_while_starting(bench: Bench) -> None:
    bench.start()
    pid = bench.sidecar

    def ended() -> bool:
        row = proctree.lookup(pid)
        return row is None or row.dead

    # As soon as there is one, and through its first second: as many a Ctrl-C as an impatient user gives.
    for _ in range(11):
        if not ended():
            bench.kill(pid, signal.SIGINT)
        time.sleep(0.1)
    future = bench.submit(jobs.add, 20, 22)
    deadline = time.monotonic() + 30.0
    while not future.done() and not ended():
        if time.monotonic() > deadline:
            raise Unanswered(
                f"the sidecar (pid {pid}) got SIGINT and lives on; after 30 s a job has no answer"
            )
        time.sleep(0.02)
    state = "it has ended" if ended() else "it lives"
    error = bench.error_of(
        future, BOUND, f"the sidecar (pid {pid}) got SIGINT in its first second, {state}; a job"
    )
    bench.note(
        f"{state}; {'the job works' if error is None else f'{type(error).__name__}: {str(error)[:200]}'}"
    )
    if error is None:
        check(future.result() == 42, "the job got a wrong result")
        bench.second_job()


@feature("death.terminated-group")
def test_terminated_group(bench: Bench) -> None:
    other = bench.other(lives_on, name="SIGTERM")
    other.appears("ready")
    below = _below(other)
    os.killpg(other.process.pid, signal.SIGTERM)
    other.appears("answered", 2 * BOUND)
    other.ends(BOUND, "after all its jobs have an answer")
    bench.gone(
        below, BOUND, "sidecar and workers of an interpreter that has ended after SIGTERM to its group"
    )


@feature("death.interrupted-group")
def test_interrupted_group(bench: Bench) -> None:
    other = bench.other(lives_on, name="SIGINT")
    other.appears("ready")
    os.killpg(other.process.pid, signal.SIGINT)
    told = other.appears("answered", 2 * BOUND)
    check(not told, f"the group of an interpreter with a ready pool got SIGINT: {told}")
    other.appears("serves", 2 * BOUND)
    other.ends(BOUND, "after its last job")


def lives_on(bench: Bench, name: str) -> None:
    """In another interpreter, of a process group of its own: it handles that signal, and its pool has work."""
    number = signal.Signals[name]
    os.setpgrp()
    got: list[int] = []
    signal.signal(number, lambda *_: got.append(1))
    bench.ready(2)
    sent = [
        bench.submit(jobs.touch_and_wait_for, bench.file(f"at{index}"), bench.file("go"), LONG)
        for index in range(2)
    ]
    sent.append(bench.submit(jobs.add, 1, 1))
    for index in range(2):
        bench.appears(f"at{index}")
    jobs.touch(bench.file("ready"))
    bench.until(lambda: got, READY, f"the interpreter did not get {name}")
    jobs.touch(bench.file("go"))
    errors = [bench.error_of(future, BOUND, f"its group got {name}; a job") for future in sent]
    told = "; ".join(f"{type(error).__name__}: {error}" for error in errors if error is not None)
    jobs.touch(bench.file("answered"), told)
    if number == signal.SIGINT:
        bench.second_job()
        all_serve(bench, "whole")
        jobs.touch(bench.file("serves"))
