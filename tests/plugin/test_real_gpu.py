# SPDX-License-Identifier: Apache-2.0
"""The plugin on a real GPU: torch.compile's own kernels through the pool, and what CUDA keeps that is no leak."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture(scope="module", autouse=True)
def gpu():
    """Asked in a process of its own: this one stays without CUDA."""
    probe = "import torch; print(torch.cuda.is_available())"
    answer = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=False
    )
    if answer.stdout.strip() != "True":
        pytest.skip("needs a GPU that torch can use")


MODEL = """
    import os, signal, threading, time
    import pytest, torch
    from pytest_compilepool.workloads import jobs

    def blocks(x):
        for n in range(4):
            x = torch.softmax(torch.nn.functional.layer_norm(x, x.shape[-1:]) * (n + 1), -1) + x.sum(-1, keepdim=True)
        return x

    def compiled(x):
        return torch.compile(blocks)(x)
"""


def test_kernels_go_through_the_pool_and_are_right(inner):
    """Also: what the first CUDA call of a process opens and starts is nobody's leak."""
    result = inner(
        MODEL
        + """
    def test_pool(compile_pool, fresh_compile_caches):
        x = torch.randn(64, 1024, device="cuda")
        torch.testing.assert_close(compiled(x), blocks(x), rtol=1e-4, atol=1e-4)
        assert compile_pool.jobs.done > 0
        assert compile_pool.jobs.failed == 0

    def test_single_threaded(single_threaded_compile, fresh_compile_caches):
        x = torch.randn(64, 1024, device="cuda")
        torch.testing.assert_close(compiled(x), blocks(x), rtol=1e-4, atol=1e-4)

    def test_warm_caches_need_no_pool(compile_pool):
        x = torch.randn(64, 1024, device="cuda")
        compiled(x)
    """,
        "--compilepool-leaks=fail",
        "--compilepool-processes=4",
    )
    result.assert_outcomes(passed=3)


def test_a_sidecar_that_dies_under_torch_compile(inner):
    result = inner(
        MODEL
        + """
    def test_killed(compile_pool, fresh_compile_caches):
        x = torch.randn(64, 1024, device="cuda")
        # One job per worker that never ends: the kernels must queue behind them.
        for n in range(compile_pool.processes):
            compile_pool.submit(jobs.sleep_after_touch, f"started{n}", 600)
        jobs.wait_for("started0", 30)
        threading.Timer(2.0, lambda: os.kill(compile_pool.sidecar.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        with pytest.raises(Exception) as caught:
            compiled(x)
        assert time.monotonic() - began < 2.0 + 5.0
        assert "SIGKILL" in str(caught.value)

    def test_next(compile_pool, fresh_compile_caches):
        x = torch.randn(64, 1024, device="cuda")
        torch.testing.assert_close(compiled(x), blocks(x), rtol=1e-4, atol=1e-4)
        assert compile_pool.jobs.done > 0
    """,
        "--compilepool-processes=2",
    )
    result.assert_outcomes(passed=2)


def test_gpu_memory_that_a_test_keeps_is_named(inner):
    result = inner(
        MODEL
        + """
    KEPT = []

    @pytest.mark.compilepool()
    def test_first_touch():
        torch.zeros(1, device="cuda")

    @pytest.mark.compilepool()
    def test_keeps():
        KEPT.append(torch.zeros(1 << 20, device="cuda"))

    @pytest.mark.compilepool()
    def test_gives_back():
        torch.zeros(1 << 20, device="cuda")
    """,
        "-v",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_keeps LEAKED*", "*gpu: cuda:0*"])
    result.stdout.no_fnmatch_line("*test_first_touch LEAKED*")
    result.stdout.no_fnmatch_line("*test_gives_back LEAKED*")
