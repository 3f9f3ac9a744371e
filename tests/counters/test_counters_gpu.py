# SPDX-License-Identifier: Apache-2.0
"""On a real GPU: the class of device without initialising CUDA, and who compiled the kernels of a real program."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_the_class_of_device_without_initialising_it(inner):
    result = inner(
        """
        import torch
        from pytest_compilepool.counters.machine import Machine

        def test_it():
            elsewhere = Machine().device()
            assert not torch.cuda.is_initialized()
            torch.ones(1, device="cuda")
            assert Machine().device() == elsewhere
            assert elsewhere.startswith(("sm", "gfx"))
        """
    )
    result.assert_outcomes(passed=1)


def test_kernels_of_a_real_program(inner):
    result = inner(
        """
        import torch
        from pytest_compilepool.counters import at_least

        def program(x):
            return torch.softmax(x.sin() * 2, -1)

        def test_pool(compile_counters, fresh_compile_caches, compile_pool):
            x = torch.randn(64, 64, device="cuda")
            with compile_counters.expect(
                {"pool.jobs_done": at_least(1), "pool.in_process_compiles": 0, "inductor.fxgraph_cache_miss": 1}
            ):
                torch.compile(program)(x)

        def test_single(compile_counters, fresh_compile_caches, single_threaded_compile):
            x = torch.randn(64, 64, device="cuda")
            with compile_counters.expect({"pool.jobs_done": 0, "pool.in_process_compiles": at_least(1)}):
                torch.compile(program)(x)
        """,
        "-p",
        "no:randomly",
    )
    result.assert_outcomes(passed=2)
