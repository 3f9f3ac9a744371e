# SPDX-License-Identifier: Apache-2.0
"""The life of a pool as the facade tells it, against what psutil and torch say. Real pools throughout."""

from __future__ import annotations

import os
import threading
import time

import psutil
import pytest

from pytest_compilepool.pool.errors import PoolClosed, PoolNotReady, PoolTimeout, PoolUnsupported
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.records import PoolState
from pytest_compilepool.torch_compat import capabilities, memoised_pool, pools, settings
from pytest_compilepool.workloads import jobs


def children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.usefixtures("needs_quiesce")
def test_states_follow_one_another(blank_pool, tmp_path):
    pool = blank_pool
    assert pool.state is PoolState.ABSENT
    pool.warm()
    assert pool.state is PoolState.STARTING
    pool.wait_ready()
    assert pool.state is PoolState.READY
    started, go = tmp_path / "started", tmp_path / "go"
    future = pool.submit(jobs.touch_and_wait_for, str(started), str(go), 30)
    jobs.wait_for(str(started), 30)
    assert pool.state is PoolState.BUSY
    go.touch()
    future.result(30)
    assert pool.state is PoolState.READY
    pool.quiesce()
    assert pool.state is PoolState.QUIESCED
    pool.shutdown()
    assert pool.state is PoolState.CLOSED
    told = [event.what for event in pool.timeline]
    assert told == ["warm", "ready", "quiesce", "shutdown"]
    assert all(event.took is not None and event.took >= 0 for event in pool.timeline)


def test_workers_are_the_children_of_the_sidecar(own_pool):
    sidecar = own_pool.sidecar
    assert psutil.Process(sidecar.pid).ppid() == os.getpid()
    assert {key.pid for key in own_pool.workers} == children(sidecar.pid)
    assert len(own_pool.workers) == own_pool.processes == 2


def test_jobs_run_in_workers_and_are_counted(own_pool):
    futures = [own_pool.submit(jobs.whoami) for _ in range(8)]
    pids = {future.result(30)[0] for future in futures}
    assert pids <= {key.pid for key in own_pool.workers}
    failing = own_pool.submit(jobs.fail, "planted text")
    with pytest.raises(Exception, match="planted text") as caught:
        failing.result(30)
    assert type(caught.value).__name__ == "SubprocException"
    assert own_pool.jobs.submitted == 9
    assert own_pool.jobs.done == 8
    assert own_pool.jobs.failed == 1
    assert own_pool.jobs.pending == 0


def test_jobs_that_torch_submits_are_counted_too(own_pool):
    assert memoised_pool() is own_pool.torch_pool
    assert memoised_pool().submit(jobs.add, 1, 2).result(30) == 3
    assert own_pool.jobs.done == 1


@pytest.mark.usefixtures("needs_quiesce")
def test_quiesce_returns_when_the_workers_are_gone(own_pool):
    leaving = own_pool.workers
    own_pool.quiesce()
    assert not any(psutil.pid_exists(key.pid) for key in leaving)
    assert children(own_pool.sidecar.pid) == set()
    own_pool.quiesce()  # twice is once
    pid = own_pool.submit(jobs.whoami).result(30)[0]
    assert pid not in {key.pid for key in leaving}


@pytest.mark.usefixtures("needs_quiesce")
def test_quiesce_lets_a_running_job_finish(own_pool, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    future = own_pool.submit(jobs.touch_and_wait_for, str(started), str(go), 30)
    jobs.wait_for(str(started), 30)
    release = threading.Timer(0.3, go.touch)
    release.start()
    own_pool.quiesce()
    assert future.done(), "quiesce came back while a job was still running"
    future.result(1)
    assert own_pool.workers == []


@pytest.mark.usefixtures("needs_quiesce")
def test_quiesce_is_bounded(own_pool, tmp_path):
    started = tmp_path / "started"
    own_pool.submit(jobs.sleep_after_touch, str(started), 600)
    jobs.wait_for(str(started), 30)
    began = time.monotonic()
    with pytest.raises(PoolTimeout, match=r"workers had 0\.5 s to go") as caught:
        own_pool.quiesce(timeout=0.5)
    assert time.monotonic() - began < 3
    assert any(str(key.pid) in str(caught.value) for key in own_pool.workers)


def test_a_torch_without_quiesce_says_so(own_pool):
    """torch 2.8: everything else works, and what cannot is refused before anything has happened."""
    if capabilities().quiesce:
        pytest.skip(f"torch {capabilities().torch} has quiesce()")
    before = own_pool.workers
    for call in (own_pool.quiesce, own_pool.recycle, own_pool.park, own_pool.wakeup):
        with pytest.raises(PoolUnsupported, match=r"this pool cannot (quiesce|wakeup): a torch without it"):
            call()
    assert own_pool.state is PoolState.READY
    assert own_pool.workers == before
    assert own_pool.submit(jobs.add, 1, 1).result(30) == 2
    assert memoised_pool() is own_pool.torch_pool


@pytest.mark.usefixtures("needs_quiesce")
def test_recycle_gives_new_workers_under_the_same_sidecar(own_pool):
    sidecar, before = own_pool.sidecar, set(own_pool.workers)
    own_pool.recycle()
    assert own_pool.sidecar == sidecar
    assert len(own_pool.workers) == 2
    assert before.isdisjoint(own_pool.workers)
    assert own_pool.submit(jobs.add, 1, 1).result(30) == 2


def test_a_pool_that_is_not_ready_in_time_says_what_was_there(blank_pool):
    blank_pool.warm()
    began = time.monotonic()
    with pytest.raises(PoolNotReady, match=r"no worker answered within 0\.05 s") as caught:
        blank_pool.wait_ready(0.05)
    assert time.monotonic() - began < 2
    assert "state STARTING" in str(caught.value)
    assert f"pid {blank_pool.sidecar.pid}" in str(caught.value)
    blank_pool.wait_ready()
    assert blank_pool.submit(jobs.add, 1, 1).result(30) == 2


def test_nothing_is_left_of_a_pool_that_was_shut_down():
    import torch._inductor.async_compile  # noqa: F401 - what its import opens is not the pool's

    fds, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    pool = CompilePool(2)
    pool.warm()
    pool.wait_ready()
    pool.submit(jobs.add, 1, 1).result(30)  # starts torch's timer thread
    tree = pool.owned_pids
    assert len(tree) == 3
    outcome = pool.shutdown()
    assert outcome.how == "asked"
    assert not any(psutil.pid_exists(pid) for pid in tree)
    assert set(os.listdir("/proc/self/fd")) == fds
    # The health thread of torch >= 2.14 looks every 2 s whether it should end.
    left = {t for t in threading.enumerate() if t not in threads and t.name != "InductorSubprocHealth"}
    assert left == set()
    assert pools.registered_pools() == []
    assert memoised_pool() is None
    pool.shutdown()  # twice is once


def test_after_the_end_it_says_so(own_pool):
    own_pool.shutdown()
    for call in (lambda: own_pool.submit(jobs.add, 1, 1), own_pool.quiesce, own_pool.warm, own_pool.recycle):
        with pytest.raises(PoolClosed, match="shut down"):
            call()


def test_before_the_beginning_it_says_so(blank_pool):
    with pytest.raises(PoolClosed, match=r"submit: this pool was not warmed yet: call warm\(\) first"):
        blank_pool.submit(jobs.add, 1, 1)


@pytest.mark.usefixtures("needs_quiesce")
def test_parked_and_leased_again(own_pool):
    sidecar, workers = own_pool.sidecar, set(own_pool.workers)
    own_pool.submit(jobs.add, 1, 1).result(30)
    own_pool.park()
    assert memoised_pool() is None
    assert pools.registered_pools() == []
    assert own_pool.parked
    assert children(sidecar.pid) == set()
    own_pool.lease()
    assert own_pool.sidecar == sidecar
    assert workers.isdisjoint(own_pool.workers)
    assert own_pool.jobs.submitted == 0
    assert memoised_pool() is own_pool.torch_pool
    assert own_pool.torch_pool.submit(jobs.add, 1, 1).result(30) == 2


@pytest.mark.usefixtures("needs_quiesce")
def test_torch_uses_a_leased_pool_at_once(own_pool):
    """The ready probe travels with the pool: without it the next kernels would compile in this process."""
    from torch._inductor.async_compile import AsyncCompile

    own_pool.park()
    own_pool.lease()
    assert (
        AsyncCompile.use_process_pool()
        if isinstance(AsyncCompile.__dict__["use_process_pool"], classmethod)
        else AsyncCompile().use_process_pool()
    )


def test_what_torch_held_before_is_put_back(own_pool):
    threads = settings.get_config("compile_threads")
    with CompilePool(3) as inner:
        assert memoised_pool() is inner.torch_pool
        assert own_pool.torch_pool is not inner.torch_pool
        assert settings.get_config("compile_threads") == 3
        assert len(inner.workers) == 3
    assert memoised_pool() is own_pool.torch_pool
    assert settings.get_config("compile_threads") == threads
    assert own_pool.submit(jobs.add, 1, 1).result(30) == 2


def test_a_pool_that_torch_makes_meanwhile_is_followed(own_pool):
    from torch._inductor.async_compile import AsyncCompile, shutdown_compile_workers

    first = own_pool.sidecar
    shutdown_compile_workers()
    assert own_pool.state is PoolState.CLOSED
    with pytest.raises(PoolClosed, match="somebody else shut this pool down"):
        own_pool.submit(jobs.add, 1, 1)
    AsyncCompile.warm_pool()
    assert own_pool.sidecar not in (None, first)
    assert own_pool.submit(jobs.add, 1, 1).result(60) == 2
    second = own_pool.sidecar
    own_pool.shutdown()
    assert not psutil.pid_exists(second.pid)
    assert own_pool.death is None


def test_many_threads_submit(own_pool):
    results: list[int] = []

    def work(number: int) -> None:
        results.extend(own_pool.submit(jobs.add, number, i).result(60) for i in range(20))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == sorted(n + i for n in range(8) for i in range(20))
    assert own_pool.jobs.done == 160


def test_one_process_is_no_pool():
    with pytest.raises(ValueError, match="at least 2 processes, not 1: 1 means no pool"):
        CompilePool(1)


def test_a_fork_pool_has_no_sidecar_and_cannot_quiesce():
    with CompilePool(2, "fork") as pool:
        assert pool.sidecar is None
        pid = pool.submit(jobs.whoami).result(30)[0]
        assert pid in {key.pid for key in pool.workers}
        assert psutil.Process(pid).ppid() == os.getpid()
        with pytest.raises(PoolUnsupported, match="cannot quiesce: start method fork"):
            pool.quiesce()
        before = set(pool.workers)
        pool.recycle()
        assert pool.submit(jobs.add, 1, 1).result(30) == 2
        assert before.isdisjoint(pool.workers)
        tree = pool.owned_pids
    assert pool.state is PoolState.CLOSED
    assert not any(psutil.pid_exists(pid) for pid in tree)


@pytest.mark.usefixtures("needs_quiesce")
def test_quiesce_waits_for_a_job_whose_worker_is_not_forked_yet(own_pool, tmp_path):
    own_pool.quiesce()
    future = own_pool.submit(jobs.sleep_after_touch, str(tmp_path / "started"), 1.0)
    own_pool.quiesce()
    assert future.done()
    assert own_pool.workers == []


def test_pools_may_end_in_any_order():
    threads = settings.get_config("compile_threads")
    first, second = CompilePool(2), CompilePool(3)
    try:
        for pool in (first, second):
            pool.warm()
        first.shutdown()
        assert memoised_pool() is second.torch_pool
        assert settings.get_config("compile_threads") == 3
    finally:
        second.shutdown()
        first.shutdown()
    assert memoised_pool() is None
    assert settings.get_config("compile_threads") == threads


def test_a_job_that_is_cancelled_ends_its_future(tmp_path):
    pool = CompilePool(2, "fork")
    pool.warm()
    futures = [pool.submit(jobs.sleep_after_touch, str(tmp_path / str(n)), 600) for n in range(6)]
    pool.shutdown(0.5)
    for future in futures:
        with pytest.raises(Exception):  # noqa: B017 - cancelled or broken, but over
            future.result(5)
        assert future.done()


def test_late_jobs_count_for_nobody_after_the_next_lease(own_pool, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    future = own_pool.submit(jobs.touch_and_wait_for, str(started), str(go), 30)
    jobs.wait_for(str(started), 30)
    own_pool._jobs.clear()  # as lease() does
    go.touch()
    future.result(30)
    assert own_pool.jobs.done == 0
    assert own_pool.jobs.pending == 0


def test_no_finalizer_keeps_a_closed_pool(own_pool):
    from multiprocessing import util

    pool = own_pool.torch_pool
    own_pool.shutdown()
    assert [f for f in util._finalizer_registry.values() if f._callback == pool.shutdown] == []
