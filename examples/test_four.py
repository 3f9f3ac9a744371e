# SPDX-License-Identifier: Apache-2.0
"""Four tests: one compiles through the pool, one quiesces it, one leaks on purpose, one finds a clean machine.

The first needs triton (no GPU: the kernels are compiled for one that is not there). Run it with
`pytest -p compilepool -q examples/test_four.py`; the third is reported as `L`.
"""

from __future__ import annotations

import os
import tempfile
import threading

import psutil
import pytest

from pytest_compilepool.workloads import jobs


def test_compiles_through_the_pool(compile_pool):
    pytest.importorskip("triton", reason="the kernels are Triton's: pip install triton")
    from pytest_compilepool.workloads.triton_kernels import KERNELS, compile_kernel

    futures = [compile_pool.submit(compile_kernel, name, ("cuda", 90, 32)) for name in KERNELS]
    results = [future.result(timeout=120) for future in futures]

    workers = {key.pid for key in compile_pool.workers}
    assert {result["pid"] for result in results} <= workers, "compiled elsewhere"
    assert os.getpid() not in {result["pid"] for result in results}
    assert all(result["binary_bytes"] > 0 for result in results)
    assert compile_pool.jobs.done == len(KERNELS)


def test_quiesced_means_that_the_workers_are_gone(compile_pool):
    before = compile_pool.workers
    assert len(before) == compile_pool.processes

    compile_pool.quiesce()

    assert compile_pool.workers == []
    assert not any(psutil.pid_exists(key.pid) for key in before)
    assert str(compile_pool.state) == "QUIESCED"


def test_leaks_on_purpose(compile_pool_factory):
    pool = compile_pool_factory(processes=2)  # never shut down
    assert pool.submit(jobs.add, 1, 2).result(timeout=60) == 3
    threading.Thread(target=threading.Event().wait, name="forgotten-thread", daemon=True).start()
    os.open(os.path.join(tempfile.gettempdir()), os.O_RDONLY)  # never closed
    os.environ["FORGOTTEN_VARIABLE"] = "1"


def test_finds_a_clean_machine(compile_pool):
    assert "FORGOTTEN_VARIABLE" not in os.environ
    assert compile_pool.other_pools == []
    assert compile_pool.submit(jobs.add, 20, 22).result(timeout=60) == 42
