# SPDX-License-Identifier: Apache-2.0
"""Proofs without a GPU: these counters moved, a warm start compiles nothing, the pool makes what one thread makes.

Needs triton (no GPU: kernels are compiled for one that is not there). Run it with
`pytest -p compilepool -q examples/test_proofs.py`.
"""

from __future__ import annotations

import pytest

from pytest_compilepool.workloads import torch_programs

pytest.importorskip("triton", reason="the kernels are Triton's: pip install triton")

HOPPER = pytest.mark.compilepool(target="cuda:90", processes=2)
KERNELS = ("softmax", "transpose", "own_kernel")


@HOPPER
def test_a_warm_start_saves_nothing(compile_phases):
    cold = compile_phases.cold(torch_programs.run_all, ("softmax",))
    assert cold.artifacts_saved == 1
    warm = compile_phases.warm(torch_programs.run_all, ("softmax",))
    assert warm.counters["aot_autograd.autograd_cache_hit"] == 1
    assert warm.artifacts_saved == 0


@HOPPER
def test_the_pool_makes_what_one_thread_makes(compile_parity):
    report = compile_parity.check(torch_programs.run_all, (KERNELS,), processes=(1, 2), compile=False)
    assert report.kernels >= 3


@HOPPER
def test_every_kernel_went_to_a_worker(compile_counters, compile_target, compile_pool):
    with compile_counters.expect({"pool.jobs_done": 1, "pool.in_process_compiles": 0}):
        compile_target.run(torch_programs.run_all, ("softmax",))
    workers = {key.pid for key in compile_pool.workers}
    assert set(compile_counters.jobs_by_worker()) <= workers
