# SPDX-License-Identifier: Apache-2.0
"""What the facade says when processes die or hang; after each fault, somebody sends a second job."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest
from tiers import further

from pytest_compilepool import proctree
from pytest_compilepool.pool import state
from pytest_compilepool.pool.closing import close_pool
from pytest_compilepool.pool.errors import SidecarDied
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.pool.manager import PoolManager, Request
from pytest_compilepool.records import PoolState
from pytest_compilepool.torch_compat import live_pools, memoised_pool
from pytest_compilepool.workloads import jobs

WITHIN = 5.0  # seconds in which a death must be told


@pytest.mark.parametrize("number", [signal.SIGKILL, *further(signal.SIGTERM)])
def test_a_busy_sidecar_dies(own_pool, tmp_path, number):
    started = tmp_path / "started"
    future = own_pool.submit(jobs.sleep_after_touch, str(started), 600)
    jobs.wait_for(str(started), 30)
    sidecar, workers = own_pool.sidecar, own_pool.workers
    began = time.monotonic()
    os.kill(sidecar.pid, number)
    with pytest.raises(SidecarDied, match=rf"sidecar \(pid {sidecar.pid}\) was killed by {number.name}"):
        future.result(WITHIN)
    with pytest.raises(SidecarDied, match="nobody had shut the pool down"):
        own_pool.submit(jobs.add, 1, 1)
    assert time.monotonic() - began < WITHIN
    assert own_pool.state is PoolState.BROKEN
    assert own_pool.death_was_told
    # torch leaves the workers of a dead sidecar alive for up to 60 s.
    assert proctree.wait_gone(workers, WITHIN) == []
    own_pool.shutdown()
    with CompilePool(2) as second:
        assert second.submit(jobs.add, 1, 1).result(30) == 2


def test_an_idle_sidecar_dies_and_torch_is_told(own_pool):
    """torch's own users wait in a plain future: it must fail as well, not only those of the facade."""
    torch_pool = own_pool.torch_pool
    os.kill(own_pool.sidecar.pid, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN
    while own_pool.death is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert own_pool.state is PoolState.BROKEN
    assert not own_pool.death_was_told
    # What compile_fx does for inputs on a GPU, and what it does for a kernel.
    with pytest.raises(RuntimeError, match="was killed by SIGKILL"):
        torch_pool.wakeup()
    with pytest.raises(RuntimeError, match="was killed by SIGKILL"):
        torch_pool.submit(jobs.add, 1, 1)


def test_a_pool_that_says_running_over_a_dead_sidecar_is_broken(own_pool):
    own_pool._stop_watch()  # or it would have closed torch's object by now
    sidecar = own_pool.sidecar
    os.kill(sidecar.pid, signal.SIGKILL)
    assert proctree.wait_gone([sidecar], WITHIN) == []
    status = own_pool.status
    assert status.state is PoolState.BROKEN
    assert "sidecar gone" in status.os_says
    own_pool.shutdown(1.0)


def test_a_worker_dies_and_the_pool_recovers(own_pool):
    before = set(own_pool.workers)
    with pytest.raises(Exception, match="process"):
        own_pool.submit(jobs.exit_process, 3).result(30)
    assert own_pool.submit(jobs.add, 20, 22).result(30) == 42
    assert own_pool.state in (PoolState.READY, PoolState.BUSY)
    assert before.isdisjoint(own_pool.workers)


def test_shutdown_is_bounded_and_takes_the_whole_tree(own_pool, tmp_path):
    started, grandchild = tmp_path / "started", tmp_path / "grandchild"
    own_pool.submit(jobs.ignore_sigterm_and_wait, str(started))
    own_pool.submit(jobs.spawn_grandchild, str(grandchild), 600).result(30)
    jobs.wait_for(str(started), 30)
    tree = own_pool.owned_pids
    pid = int(grandchild.read_text())
    assert pid in tree
    began = time.monotonic()
    outcome = own_pool.shutdown(1.0)
    took = time.monotonic() - began
    assert took < 1.0 + 1.0 + 3.0 + 3.0, f"took {took:.1f} s"
    assert outcome.survivors == ()
    alive = [p for p in tree if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
    assert alive == []


def test_a_job_that_raises_system_exit_does_not_hold_up_the_next_test():
    """Up to torch 2.14 such a job silences the pool for good (its future never resolves)."""
    manager = PoolManager()
    request = Request(2)
    try:
        pool = manager.acquire(request)
        pool.submit(jobs.raise_system_exit, 3)
        began = time.monotonic()
        manager.release(pool)
        fresh = manager.acquire(request)
        assert fresh.submit(jobs.add, 1, 1).result(30) == 2
        assert time.monotonic() - began < 60
    finally:
        manager.close_all()
    assert memoised_pool() is None


def test_a_death_that_nobody_was_told_of_is_handed_out():
    manager = PoolManager()
    try:
        pool = manager.acquire(Request(2))
        os.kill(pool.sidecar.pid, signal.SIGKILL)
        deadline = time.monotonic() + WITHIN
        while pool.death is None and time.monotonic() < deadline:
            time.sleep(0.01)
        untold = manager.release(pool)
        assert isinstance(untold, SidecarDied)
        assert manager.acquire(Request(2)).submit(jobs.add, 1, 1).result(30) == 2
    finally:
        manager.close_all()


@pytest.mark.usefixtures("needs_quiesce")
def test_a_sidecar_that_dies_while_it_is_parked_has_not_quiesced(monkeypatch):
    manager = PoolManager()
    try:
        pool = manager.acquire(Request(2))
        sidecar, look, ask = pool.sidecar, state.find_workers, pool.torch_pool.quiesce
        asked = threading.Event()

        def kill_then_look(*given):
            if asked.is_set():  # the workers have gone: this look is the one that ends the wait
                os.kill(sidecar.pid, signal.SIGKILL)
                proctree.wait_gone([sidecar], WITHIN)
            return look(*given)

        with monkeypatch.context() as patched:
            patched.setattr(pool.torch_pool, "quiesce", lambda: (ask(), asked.set()))
            patched.setattr(state, "find_workers", kill_then_look)
            untold = manager.release(pool)
        assert isinstance(untold, SidecarDied)
    finally:
        manager.close_all()


@pytest.mark.parametrize("kind", ["fx_compile", "autotune", "cpp_threads", "precompile_threads"])
def test_pools_that_torch_does_not_register_are_seen_and_closed(kind):
    make_other_pool(kind)
    refs = [ref for ref in live_pools() if ref.kind == kind]
    assert len(refs) == 1
    outcome = close_pool(refs[0], 5.0)
    assert outcome.survivors == ()
    assert [ref for ref in live_pools() if ref.kind == kind] == []
    if refs[0].pid is not None:
        assert not psutil.pid_exists(refs[0].pid)


def make_other_pool(kind: str) -> None:
    from torch._inductor import autotune_process, config
    from torch._inductor.async_compile import AsyncCompile

    if kind == "fx_compile":
        from torch._inductor.compile_fx_subproc import _SubprocessFxCompile

        _SubprocessFxCompile.process_pool()
    elif kind == "cpp_threads":
        with config.patch(compile_threads=2):
            AsyncCompile.pool().submit(int).result(30)
    elif kind == "autotune":
        if not hasattr(autotune_process, "AutotuneProcessPool"):
            autotune_process.get_tuning_process_pool()
            return
        with config.patch(pipeline_max_autotune_gemm=True):
            autotune_process.AutotuneProcessPool.get_instance().submit(jobs.add, 1, 1).result(60)
    else:
        cls = getattr(autotune_process, "PrecompileThreadPool", None)
        if cls is None:
            pytest.skip("this torch has no PrecompileThreadPool")
        cls.get_instance().submit(int).result(30)


def test_a_torch_that_says_closed_over_living_processes_is_broken(own_pool):
    """Both witnesses count: the tree alone would say READY."""
    own_pool.torch_pool.running = False
    status = own_pool.status
    assert status.state is PoolState.BROKEN
    assert "torch says the pool is closed" in status.reason
    own_pool.torch_pool.running = True


@pytest.mark.parametrize("who", ["sidecar", "workers"])
def test_stopped_processes_are_not_ready(own_pool, who):
    stopped = [own_pool.sidecar] if who == "sidecar" else own_pool.workers
    for key in stopped:
        os.kill(key.pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + WITHIN
        while own_pool.state is PoolState.READY and time.monotonic() < deadline:
            time.sleep(0.01)
        status = own_pool.status
        assert status.state is PoolState.BROKEN
        assert f"pid {stopped[0].pid}" in status.reason
    finally:
        for key in stopped:
            os.kill(key.pid, signal.SIGCONT)


def test_a_dead_pool_is_not_put_back(own_pool):
    """torch would hand it out for ever."""
    dead = own_pool.torch_pool
    inner = CompilePool(2)
    inner.warm()
    os.kill(dead.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN
    while dead.running and time.monotonic() < deadline:
        time.sleep(0.01)
    inner.shutdown()
    assert memoised_pool() is None
