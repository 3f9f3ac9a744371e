# SPDX-License-Identifier: Apache-2.0
"""Processes that are forked from one with a pool, and pools of processes that were forked."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_compilepool.conformance.bench import BOUND, READY, Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs


@feature("fork.child-has-its-own-pool")
def test_child_has_its_own_pool(bench: Bench) -> None:
    bench.ready()
    before = set(bench.workers())

    def work() -> object:
        pool = bench.requirements.current()
        bench.requirements.wait_ready(pool, READY)
        pid, parent, _ = bench.answer(pool.submit(jobs.whoami), what="a job of the forked process")
        found = {"sidecar": bench.requirements.sidecar(pool), "worker": pid, "parent": parent}
        bench.requirements.shutdown(pool)
        return found

    child = _fork(bench, "child", work)
    found = _told(bench, "child", child)
    check(found["sidecar"] != bench.sidecar, "the pool of the forked process has the sidecar of its parent's")
    check(
        found["parent"] == found["sidecar"],
        f"a job of the forked process was done by a worker of another pool: {found}",
    )
    bench.second_job()
    check(
        set(bench.workers()) == before,
        "the parent's pool has other workers after a fork has had a pool of its own",
    )


@feature("fork.inherited-pool-is-harmless")
def test_inherited_pool_is_harmless(bench: Bench) -> None:
    bench.ready()

    def work() -> object:
        done = Path(bench.file("done"))
        future = bench.submit(jobs.touch, str(done))
        bench.until(
            lambda: future.done() or done.exists(), BOUND, "a job of the forked process has an answer"
        )
        return str(future.exception(0)) if future.done() else "it was done"

    child = _fork(bench, "child", work)
    told = _told(bench, "child", child)
    bench.note(f"a job that the forked process sent to its parent's pool: {told[:100]}")
    for _ in range(3):
        bench.second_job()


@feature("fork.daemonic-process")
def test_daemonic_process(bench: Bench) -> None:
    process = multiprocessing.get_context("fork").Process(target=_daemon, args=(bench,), daemon=True)
    process.start()
    told = bench.appears("daemon", READY + BOUND)
    processes = bench.tree()
    jobs.touch(bench.file("end"))
    check(told == "42", f"a daemonic process had no use of a pool: {told}")
    check(len(processes) >= 3, f"it is said to have had a pool, and there are but the processes {processes}")
    # It is waited for here: nobody else may reap it.
    process.join(BOUND)
    check(process.exitcode is not None, f"the daemonic process had not ended {BOUND:g} s after its work")
    bench.gone(processes, BOUND, "what a daemonic process had made")


def _daemon(bench: Bench) -> None:
    """In the daemonic process: one job; it returns, and leaves the pool to what is done at its end."""
    text = _said(lambda: bench.answer(bench.submit(jobs.add, 20, 22)))
    jobs.touch(bench.file("daemon"), text)
    jobs.wait_for(bench.file("end"), BOUND)


@feature("fork.sidecar-is-single-threaded")
def test_sidecar_is_single_threaded(bench: Bench) -> None:
    bench.inject(threads=bench.file("threads"))
    bench.ready(2)
    bench.second_job()
    if bench.requirements.quiesce:
        bench.pool.quiesce()
        bench.until(lambda: not bench.workers(), BOUND, "no worker is left after quiesce()")
        bench.second_job()
    counts = [int(line) for line in bench.appears("threads").split()]
    check(len(counts) >= 2, f"a pool of 2 has forked {len(counts)} workers")
    check(
        set(counts) == {1},
        f"the sidecar had more than one thread when it forked: {counts} threads at its forks",
    )


@feature("fork.several-processes")
def test_several_processes(bench: Bench) -> None:
    names = [f"rank{number}" for number in range(3)]

    def work(name: str) -> object:
        bench.ready(2)
        found = [bench.answer(bench.submit(jobs.whoami)) for _ in range(20)]
        jobs.touch(bench.file(f"{name}-serves"))
        jobs.wait_for(bench.file("go"), READY)
        bench.second_job()
        told = {"sidecar": bench.sidecar, "parents": sorted({parent for _, parent, _ in found})}
        bench.requirements.shutdown(bench.pool)
        return told

    children = {name: _fork(bench, name, lambda name=name: work(name)) for name in names}  # type: ignore[misc]
    for name, child in children.items():
        bench.until(
            lambda name=name: any(Path(bench.file(one)).exists() for one in (f"{name}-serves", name)),  # type: ignore[misc]
            READY,
            f"the pool of process {child} serves",
        )
    processes = bench.tree()
    jobs.touch(bench.file("go"))
    found = [_told(bench, name, child) for name, child in children.items()]
    for one in found:
        check(
            one["parents"] == [one["sidecar"]],
            f"jobs of one process were done by workers of another's pool: {found}",
        )
    check(len({one["sidecar"] for one in found}) == 3, f"three processes with a pool each: {found}")
    bench.gone(processes, BOUND, "three processes that have shut their pools down")


def _fork(bench: Bench, name: str, work: Callable[[], object]) -> int:
    """Fork a process that does this, and puts what it gives, or raises, into the file `name`. Its pid."""
    pid = os.fork()
    if pid == 0:
        jobs.touch(bench.file(name), _said(work))
        os._exit(0)
    return pid


def _said(work: Callable[[], object]) -> str:
    """What it gives as JSON; what it raises in words."""
    if "COMPILEPOOL_BENCH" in os.environ:
        # A fault, or a mutant, is for the sidecar of this process, too.
        os.environ["COMPILEPOOL_BENCH"] = str(os.getpid())
    try:
        return json.dumps(work())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def _told(bench: Bench, name: str, pid: int) -> Any:
    """What the forked process has put into its file, once it has ended."""
    text = bench.appears(name, READY + BOUND)
    bench.until(lambda: os.waitpid(pid, os.WNOHANG)[0], BOUND, f"the forked process {pid} has ended")
    try:
        return json.loads(text)
    except ValueError:
        raise AssertionError(f"in a forked process: {text}") from None
