# SPDX-License-Identifier: Apache-2.0
"""The pool's own counters, of real pools; and compiles that the pool was there to take off this process's hands."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from pytest_compilepool.counters.counts import Distinct, difference
from pytest_compilepool.counters.poolsource import settle
from pytest_compilepool.records import Jobs

pytestmark = pytest.mark.usefixtures("pool_here")


JOBS_AND_WORKERS = """
import pytest
from pytest_compilepool.counters import at_least, between
from pytest_compilepool.workloads import jobs

def test_counted(compile_counters, compile_pool):
    with compile_counters.expect(
        {"pool.jobs_submitted": 2, "pool.jobs_done": 1, "pool.jobs_failed": 1, "pool.workers_used": between(1, 2)},
        exact=True,
    ):
        assert compile_pool.submit(jobs.add, 1, 1).result(30) == 2
        with pytest.raises(Exception):
            compile_pool.submit(jobs.fail, "no").result(30)
    workers = compile_counters.jobs_by_worker()
    assert sum(map(len, workers.values())) == 2
    assert set(workers) <= {key.pid for key in compile_pool.workers}
    # A worker that did a job before has done one in this block, too.
    for _ in range(5):
        with compile_counters.expect({"pool.workers_used": 1, "pool.jobs_done": 1}):
            compile_pool.submit(jobs.add, 1, 1).result(30)
    assert compile_counters.moved()["pool.workers_used"] == len(compile_counters.jobs_by_worker())

def test_by_torch_itself(compile_counters, compile_pool):
    for _ in range(50):  # torch's own future wakes who waits before it tells who counts
        with compile_counters.expect({"pool.jobs_done": 1}):
            compile_pool.torch_pool.submit(jobs.add, 1, 1).result(30)

def test_of_a_factory(compile_counters, compile_pool_factory):
    with compile_counters.expect({"pool.jobs_done": 1}):
        with compile_pool_factory(processes=2) as pool:
            pool.submit(jobs.add, 1, 1).result(30)

def test_shows_who_did_what(compile_counters, compile_pool):
    compile_pool.submit(jobs.add, 1, 1).result(30)
    assert sum(map(len, compile_counters.jobs_by_worker().values())) == 1
    assert compile_counters.moved()["pool.jobs_done"] == at_least(2)
"""


def test_jobs_and_workers_of_a_real_pool(inner):
    result = inner(
        JOBS_AND_WORKERS,
        "-p",
        "no:randomly",
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*assert 1 == at least 2",
            "*- compile counters -*",
            "*pool.jobs_done *1 *2 *+1",
            "worker pid *:",
            "*add: done *",
        ]
    )


def test_jobs_that_nobody_watches_are_told_of(inner):
    """A pool that torch made by itself: 0 would be a lie."""
    result = inner(
        """
        from pytest_compilepool.workloads import jobs

        def test_none_by_itself(compile_counters):
            from torch._inductor import config
            from torch._inductor.async_compile import AsyncCompile

            config.compile_threads = 2
            AsyncCompile.warm_pool()
            pool = AsyncCompile.process_pool()
            with compile_counters.expect({"pool.jobs_submitted": 0}):
                pass
            with compile_counters.expect({"pool.jobs_submitted": 0}):
                assert pool.submit(jobs.add, 1, 1).result(60) == 2
        """,
        "--compilepool-leaks=off",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*pool.jobs_submitted *0 *0 *0 *0 *not all: jobs went to a pool that torch made by itself*"]
    )


def test_compiles_in_the_pool_and_past_it(inner, needs_triton):
    result = inner(
        """
        from pytest_compilepool.workloads.triton_kernels import compile_kernel

        def test_it(compile_counters, compile_pool, tmp_path):
            folder = str(tmp_path)
            with compile_counters.expect({"pool.jobs_done": 1, "pool.in_process_compiles": 0}):
                compile_pool.submit(compile_kernel, "add", cache_dir=folder).result(120)
            with compile_counters.expect({"pool.jobs_done": 0, "pool.in_process_compiles": 0}):
                assert compile_kernel("add", cache_dir=folder)["cached"]
            with compile_counters.expect({"pool.jobs_done": 0, "pool.in_process_compiles": 1}):
                assert not compile_kernel("add", cache_dir=folder, num_warps=8)["cached"]

        def test_the_listener_is_gone():
            from triton import knobs
            assert knobs.compilation.listener is None
            assert "listener" not in vars(knobs.compilation)
        """,
        "-p",
        "no:randomly",
    )
    result.assert_outcomes(passed=2)


def test_a_triton_that_tells_nobody(counters, monkeypatch):
    """Triton before 3.4: 0 would be a lie here, too."""
    from pytest_compilepool.counters import CountersDiffer, UnknownCounter

    def body():
        with counters.expect({"pool.in_process_compiles": 0}):
            counters._pool._watch.deaf = True  # as it is once such a Triton has been imported

    with pytest.raises(CountersDiffer, match="this Triton tells nobody of its compiles"):
        body()
    with pytest.raises(UnknownCounter, match="this Triton tells nobody of its compiles"):
        counters.expect({"pool.in_process_compiles": 0})


class Counting:
    """A pool of torch's with one job; it is counted as done when it has been looked at often enough."""

    def __init__(self, looks: int, result: bool) -> None:
        self.looks = looks
        future: Future[int] = Future()
        if result:
            future.set_result(1)
        self.torch_pool = SimpleNamespace(pending_futures={1: future})

    @property
    def jobs(self) -> Jobs:
        self.looks -= 1
        return Jobs(submitted=1, done=int(self.looks < 0))


def test_a_job_with_a_result_is_waited_for_until_it_is_counted():
    late, pending, never = Counting(5, True), Counting(1000, False), Counting(10**6, True)
    settle(late)
    assert late.looks < 0
    settle(pending)
    assert pending.looks == 999
    began = time.monotonic()
    settle(never, 0.05)
    assert 0.05 <= time.monotonic() - began < 5


def test_how_many_did_something_in_a_span():
    before = Distinct.of(frozenset({("job 1", 10), ("job 2", 11)}))
    after = Distinct.of(frozenset({("job 1", 10), ("job 2", 11), ("job 3", 10), ("job 4", 10)}))
    assert (before, after, difference(before, after)) == (2, 2, 1)
    assert difference(0, after) == 2
