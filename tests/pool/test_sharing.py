# SPDX-License-Identifier: Apache-2.0
"""One sidecar for one test after the other: who may share it, and that its workers are new and know nothing."""

from __future__ import annotations

import functools
import importlib
import sys
import time

import psutil
import pytest

from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.pool.manager import PoolManager, Request
from pytest_compilepool.pool.needs import current_needs, differences
from pytest_compilepool.workloads import jobs


@pytest.mark.usefixtures("needs_quiesce")
def test_one_sidecar_serves_equal_needs_and_no_others(monkeypatch):
    manager = PoolManager()
    try:
        first = manager.acquire(Request(2))
        sidecar, workers = first.sidecar, set(first.workers)
        manager.release(first)
        again = manager.acquire(Request(2))
        assert again.sidecar == sidecar
        assert workers.isdisjoint(again.workers)
        manager.release(again)
        monkeypatch.setenv("TRITON_HOME", "/nonexistent/elsewhere")
        other = manager.acquire(Request(2))
        assert other.sidecar != sidecar
        assert manager.tally.reasons == ["environment changed: TRITON_HOME"]
        assert not psutil.pid_exists(sidecar.pid)
        assert other.submit(jobs.environment, ["TRITON_HOME"]).result(30) == {
            "TRITON_HOME": "/nonexistent/elsewhere"
        }
    finally:
        manager.close_all()


CACHES = ["TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT"]


@pytest.mark.usefixtures("needs_quiesce")
def test_other_cache_folders_need_no_other_sidecar(monkeypatch):
    """They come with each job: a worker has those of the test that it works for, and of no other."""
    manager = PoolManager()
    try:
        for name in CACHES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TRITON_CACHE_DIR", "/nonexistent/first")
        pool = manager.acquire(Request(2))
        sidecar = pool.sidecar
        assert pool.submit(jobs.environment, CACHES).result(30)["TRITON_CACHE_DIR"] == "/nonexistent/first"
        manager.release(pool)
        wanted = {name: f"/nonexistent/{name}" for name in CACHES}
        for name, folder in wanted.items():
            monkeypatch.setenv(name, folder)
        again = manager.acquire(Request(2))
        assert again.sidecar == sidecar
        # Whoever submits: torch as well, whose own jobs pass on two of the three.
        assert again.torch_pool.submit(jobs.environment, CACHES).result(30) == wanted
        manager.release(again)
        for name in CACHES:
            monkeypatch.delenv(name)
        last = manager.acquire(Request(2))
        assert last.sidecar == sidecar
        assert last.submit(jobs.environment, CACHES).result(30) == dict.fromkeys(CACHES)
        assert manager.tally.reasons == []
    finally:
        manager.close_all()


@pytest.mark.usefixtures("needs_quiesce")
def test_settings_that_torch_reads_when_it_makes_a_pool_need_another_one():
    from torch._inductor import config

    if not hasattr(config, "quiesce_async_compile_time"):
        pytest.skip("this torch's pools have no timer")
    manager = PoolManager()
    try:
        first = manager.acquire(Request(2))
        sidecar = first.sidecar
        manager.release(first)
        with config.patch(quiesce_async_compile_time=123):
            other = manager.acquire(Request(2))
            assert other.sidecar != sidecar
            assert manager.tally.reasons == ["settings of Inductor changed: quiesce_async_compile_time"]
    finally:
        manager.close_all()


# What a job can leave behind in its worker, and how the next one would see it.
TRACES = """
import os, signal, sys, tempfile

def spoil():
    import poplib, torch._inductor.config as config
    os.environ["SPOILT"] = "1"
    os.chdir(tempfile.gettempdir())
    config.max_autotune = not config.max_autotune
    sys.path.insert(0, "/nonexistent")
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.umask(0o177)
    return seen()

def seen():
    import torch._inductor.config as config
    mask = os.umask(0)
    os.umask(mask)
    return {
        "variable": os.environ.get("SPOILT"),
        "folder": os.getcwd(),
        "setting": config.max_autotune,
        "module": "poplib" in sys.modules,
        "path": "/nonexistent" in sys.path,
        "signal": str(signal.getsignal(signal.SIGUSR1)),
        "mask": mask,
    }
"""


@pytest.mark.usefixtures("needs_quiesce")
def test_recycled_workers_know_nothing_of_what_the_last_ones_were_made_to_do(monkeypatch, tmp_path):
    (tmp_path / "traces_of_jobs.py").write_text(TRACES)
    monkeypatch.syspath_prepend(tmp_path)
    traces = importlib.import_module("traces_of_jobs")
    manager = PoolManager()
    try:
        first = manager.acquire(Request(2))
        clean = first.submit(traces.seen).result(30)
        keys = set(first.workers)
        spoilt = first.submit(traces.spoil).result(30)
        assert all(spoilt[name] != clean[name] for name in clean), (clean, spoilt)
        manager.release(first)
        began = time.monotonic()
        again = manager.acquire(Request(2))
        assert again.sidecar == first.sidecar
        # By pid and start time: none of them is one of the last ones, nor older than this lease.
        assert keys.isdisjoint(again.workers)
        age = time.monotonic() - began + 0.02  # the kernel counts in hundredths
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert all(now - key.started <= age for key in again.workers)
        # Both workers: each waits for the other one.
        meeting = tmp_path / "meeting"
        both = [again.submit(jobs.meet_and_call, str(meeting), 2, 30.0, traces.seen) for _ in range(2)]
        assert [one.result(30) for one in both] == [clean, clean]
    finally:
        manager.close_all()


def test_what_differs_is_named(monkeypatch):
    before = current_needs(2, "subprocess")
    # torch's C++ compiles import setuptools, which leaves its own copies of packages there.
    monkeypatch.setattr(sys, "path", [*sys.path, "/nonexistent/setuptools/_vendor"])
    assert differences(before, current_needs(2, "subprocess")) == []
    monkeypatch.setattr(sys, "path", ["/nonexistent/new", *sys.path])
    monkeypatch.setenv("A_VARIABLE", "1")
    assert differences(before, current_needs(3, "subprocess", "cuda:90")) == [
        "2 processes, not 3",
        "primed for nothing, not cuda:90",
        "environment changed: A_VARIABLE",
        "sys.path changed: +/nonexistent/new",
    ]


def test_cache_folders_that_move_while_a_pool_is_used(monkeypatch, tmp_path):
    """A pool of a wider scope, whose tests have folders of their own: each job is told those of when it was sent."""
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    with CompilePool(2) as pool:
        for folder in (str(tmp_path / "a"), str(tmp_path / "b"), None):
            if folder is None:
                monkeypatch.delenv("TRITON_CACHE_DIR")
            else:
                monkeypatch.setenv("TRITON_CACHE_DIR", folder)
            meeting = str(tmp_path / f"meeting-{folder is None}-{folder and folder[-1]}")
            ask = functools.partial(jobs.environment, ["TRITON_CACHE_DIR"])
            both = [pool.submit(jobs.meet_and_call, meeting, 2, 30.0, ask) for _ in range(2)]
            assert [one.result(30) for one in both] == [{"TRITON_CACHE_DIR": folder}] * 2
