# SPDX-License-Identifier: Apache-2.0
"""PRIMED: the first Triton compile is behind every worker, by its own doing or by its sidecar's."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import signal
import tempfile
import time

import pytest

from pytest_compilepool.pool.errors import PoolClosed, PoolTimeout, PoolUnsupported, SidecarDied
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.records import PoolState
from pytest_compilepool.targets import BadTarget
from pytest_compilepool.workloads import jobs, triton_kernels

WITHIN = 60
HOPPER = "cuda:90:32"
IMPOSSIBLE = "hip:gfx000:64"
"""Of a GPU that no compiler knows: Triton raises RuntimeError."""

# What a process has imported that has compiled one of this package's kernels.
TRACE = "pytest_compilepool.workloads._triton_source"

pytestmark = pytest.mark.skipif(
    not triton_kernels.available(), reason="without triton there is nothing to prime"
)


def compiled_already(pool: CompilePool) -> bool:
    return TRACE in pool.submit(jobs.module_names).result(WITHIN)


def events(pool: CompilePool) -> dict[str, str]:
    return {event.what: event.detail for event in pool.timeline}


@pytest.mark.usefixtures("needs_quiesce")
def test_a_sidecar_that_is_primed_makes_workers_that_are():
    with CompilePool(2, prime="cuda:90") as pool:
        assert pool.state is PoolState.PRIMED
        assert events(pool)["primed by the sidecar"].startswith(f"primed for {HOPPER} in ")
        assert pool.jobs.submitted == 0
        assert compiled_already(pool)
        before = set(pool.workers)
        pool.recycle()
        assert before.isdisjoint(pool.workers)
        assert pool.state is PoolState.PRIMED
        pool.prime()
        assert "already" in events(pool)["primed"]
        pool.quiesce()
        assert pool.state is PoolState.QUIESCED
        # Its sidecar has done it; but there is nobody yet who has it.
        pool.prime()
        assert pool.state is PoolState.PRIMED
        pool.park()
        pool.lease()
        assert pool.state is PoolState.PRIMED
        # Another GPU is another compile, which the workers pay for.
        pool.prime("cuda:80")
        assert "2 workers for cuda:80:32" in events(pool)["primed"]


@pytest.mark.usefixtures("needs_quiesce")
def test_workers_pay_each_for_itself_and_their_successors_again(own_pool):
    assert own_pool.state is PoolState.READY
    assert not compiled_already(own_pool)
    own_pool.recycle()
    own_pool.prime("cuda:90")
    assert own_pool.state is PoolState.PRIMED
    assert "2 workers for cuda:90:32, the slowest in" in events(own_pool)["primed"]
    assert own_pool.jobs.submitted == 1
    assert compiled_already(own_pool)
    own_pool.recycle()
    assert own_pool.state is PoolState.READY
    assert not compiled_already(own_pool)


def test_where_it_cannot_be_done_the_pool_is_as_good_as_before(own_pool):
    with pytest.raises(PoolUnsupported, match=r"^prime: hip:gfx000:64: \S"):
        own_pool.prime(IMPOSSIBLE)
    assert own_pool.state is PoolState.READY
    assert own_pool.submit(jobs.add, 1, 2).result(WITHIN) == 3


def test_a_sidecar_that_could_not_do_it_says_so_and_works():
    with CompilePool(2, prime=IMPOSSIBLE) as pool:
        assert pool.state is PoolState.READY
        assert events(pool)["primed by the sidecar"].startswith(f"not primed for {IMPOSSIBLE}: ")
        assert pool.submit(jobs.add, 1, 2).result(WITHIN) == 3


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="the sidecar is stopped in the middle of it")
def test_a_sidecar_that_dies_while_it_primes_leaves_no_folder():
    pool = CompilePool(2, prime="cuda:90")
    try:
        pool.warm()
        sidecar = pool.sidecar
        assert sidecar is not None
        pattern = os.path.join(tempfile.gettempdir(), f"compilepool-{os.getpid()}-prime-{sidecar.pid}-*")
        deadline = time.monotonic() + WITHIN
        while not glob.glob(pattern):
            assert time.monotonic() < deadline, "it has not begun"
            time.sleep(0.001)
        os.kill(sidecar.pid, signal.SIGKILL)
        with pytest.raises(SidecarDied):
            pool.wait_ready(WITHIN)
    finally:
        pool.shutdown(2.0)
    assert glob.glob(pattern) == []


@pytest.mark.usefixtures("needs_quiesce")
def test_workers_that_were_let_go_are_forked_for_it(own_pool):
    own_pool.quiesce()
    own_pool.prime("cuda:90", timeout=WITHIN)
    assert own_pool.state is PoolState.PRIMED


def folders() -> list[str]:
    return glob.glob(os.path.join(tempfile.gettempdir(), f"compilepool-{os.getpid()}-prime-*"))


def test_what_workers_still_write_when_the_time_is_over_is_removed(own_pool):
    with pytest.raises(PoolTimeout):
        own_pool.prime("cuda:90", timeout=0.1)
    # They are at it yet, each in a folder that it makes again if it must.
    assert own_pool.submit(jobs.add, 1, 2).result(WITHIN) == 3
    own_pool.shutdown()
    assert folders() == []


def test_ctrl_c_gets_through_while_workers_compile(own_pool, monkeypatch):
    await_, calls = own_pool._await, []

    def interrupted(done, deadline, error, message, future=None):
        if message.startswith("prime: "):
            calls.append(message)
            until = time.monotonic() + WITHIN
            while not any(glob.glob(f"{folder}/cache-*") for folder in folders()):
                assert time.monotonic() < until
                time.sleep(0.001)
            raise KeyboardInterrupt
        return await_(done, deadline, error, message, future)

    def written_meanwhile(folder, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", folder)

    monkeypatch.setattr(own_pool, "_await", interrupted)
    # What a worker that writes at that very moment would have it say, which is not to be hit at will.
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", written_meanwhile)
        with pytest.raises(KeyboardInterrupt):
            own_pool.prime("cuda:90")
    assert calls
    own_pool.shutdown()
    assert folders() == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_sidecar_that_is_killed_meanwhile_is_told_of(own_pool, monkeypatch):
    sidecar, submit = own_pool.sidecar, own_pool._jobs.submit_unseen

    def killing(*arguments):
        future = submit(*arguments)
        os.kill(sidecar.pid, signal.SIGKILL)
        return future

    monkeypatch.setattr(own_pool._jobs, "submit_unseen", killing)
    monkeypatch.setattr(own_pool, "_wanted", 1)  # one job is enough
    with pytest.raises(SidecarDied):
        own_pool.prime("cuda:90")


def test_it_is_bounded_where_a_worker_is_busy(own_pool, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    busy = own_pool.submit(jobs.touch_and_wait_for, str(started), str(go), WITHIN)
    jobs.wait_for(str(started), WITHIN)
    with pytest.raises(PoolTimeout, match="prime: 2 workers had 1 s for a first compile each"):
        own_pool.prime("cuda:90", timeout=1.0)
    jobs.touch(str(go))
    busy.result(WITHIN)
    assert own_pool.submit(jobs.add, 1, 2).result(WITHIN) == 3
    own_pool.prime("cuda:90")
    assert own_pool.state is PoolState.PRIMED


@pytest.mark.parametrize(
    "target", ["hopper", "cuda:90:31", "cuda:73:32", "cuda", 90, "cuda:90:32:1", "cuda:90;rm:32"]
)
def test_a_bad_target_gets_a_sentence(blank_pool, target):
    with pytest.raises(BadTarget, match=r"^prime: .* is not allowed; allowed: cuda:75, "):
        blank_pool.prime(target)


def test_a_target_has_to_be_named_where_the_sidecar_has_none(blank_pool):
    with pytest.raises(BadTarget, match=r"^prime: name a target, such as cuda:90"):
        blank_pool.prime()


def test_before_it_is_warm_it_says_so(blank_pool):
    with pytest.raises(PoolClosed, match="was not warmed yet"):
        blank_pool.prime("cuda:90")
