# SPDX-License-Identifier: Apache-2.0
"""The guard at real CUDA graphs, each in an inner pytest with the plugin's own pools."""

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
    import pytest, torch
    from pytest_compilepool.workloads import jobs

    # Nothing here picks an algorithm by the size of a workspace: eager and graph run the same kernels.
    def blocks(x):
        for n in range(4):
            x = torch.softmax(torch.nn.functional.layer_norm(x, x.shape[-1:]) * (n + 1), -1) + x.sum(-1, keepdim=True)
        return x

    class Captured:
        \"\"\"`blocks` as a graph over an input of its own.\"\"\"

        def __init__(self, capture=None):
            self.x = torch.randn(64, 1024, device="cuda")
            self.warm_up()
            self.graph = torch.cuda.CUDAGraph()
            (capture or self.by_context)()

        def warm_up(self):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                blocks(self.x)
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()

        def by_context(self):
            with torch.cuda.graph(self.graph):
                self.y = blocks(self.x)

        def by_hand(self):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.graph.capture_begin()
                self.y = blocks(self.x)
                self.graph.capture_end()
            torch.cuda.current_stream().wait_stream(side)

        def replays_right(self):
            \"\"\"Whether a replay over an input that the capture has not seen is eager's result, bit by bit.\"\"\"
            self.x.copy_(torch.randn(64, 1024, device="cuda"))
            self.graph.replay()
            replayed = self.y.clone()
            torch.cuda.synchronize()
            return torch.equal(replayed, blocks(self.x))
"""


BY_CONTEXT_AND_BY_HAND = """
    def test_quiesced(quiesced_compile_pool, capture_guard):
        captured = Captured()
        assert captured.replays_right()
        (record,) = capture_guard.captures
        assert record.inside("by_context")
        assert " in by_context" in record.where
        assert record.ended is not None
        assert record.took < 0.1
        assert [str(look.state) for look in record.pools if look.processes] == ["QUIESCED"]
        capture_guard.assert_quiesced()

    def test_ready(compile_pool, capture_guard):
        captured = Captured()
        assert captured.replays_right()
        with pytest.raises(AssertionError) as caught:
            capture_guard.assert_quiesced()
        text = str(caught.value)
        assert text.startswith("1 of 1 graph captures did not find the compile pool quiesced: number 1")
        assert "compile pool READY" in text
        pids = sorted(key.pid for key in compile_pool.workers)
        assert len(pids) == 2
        assert "workers pid " + ", ".join(map(str, pids)) in text
        assert "in by_context" in text
        assert "with torch.cuda.graph(self.graph):" in text
        compile_pool.quiesce()
        again = Captured()
        assert again.replays_right()
        capture_guard.assert_quiesced(capture_guard.captures[1:])

    def test_forty_jobs_are_pending(compile_pool, capture_guard, tmp_path):
        go = str(tmp_path / "go")
        futures = [
            compile_pool.submit(jobs.touch_and_wait_for, str(tmp_path / f"started{n}"), go, 60) for n in range(40)
        ]
        try:
            jobs.wait_for(str(tmp_path / "started0"), 60)
            captured = Captured()
            assert captured.replays_right()
        finally:
            jobs.touch(go)
        # While they end, and results come in.
        assert captured.replays_right()
        workers = {key.pid for key in compile_pool.workers}
        assert {future.result(60) for future in futures} <= workers
        assert captured.replays_right()
        (record,) = capture_guard.captures
        (look,) = [look for look in record.pools if look.processes]
        assert str(look.state) == "BUSY"
        assert look.pending == len(look.jobs) == 40
        assert set(look.workers) == workers
        with pytest.raises(AssertionError, match="touch_and_wait_for, pending for .* s, worker pid") as caught:
            capture_guard.assert_quiesced()
        assert "40 jobs pending" in str(caught.value)
        assert "and 35 more jobs" in str(caught.value)

    def test_short_jobs_run_while_it_captures(compile_pool, capture_guard, tmp_path):
        futures = [
            compile_pool.submit(jobs.sleep_after_touch, str(tmp_path / f"job{n}"), 0.05) for n in range(40)
        ]
        captured = Captured()
        assert captured.replays_right()
        workers = {key.pid for key in compile_pool.workers}
        assert {future.result(60) for future in futures} <= workers
        assert captured.replays_right()
        with pytest.raises(AssertionError, match="graph captures did not find the compile pool quiesced"):
            capture_guard.assert_quiesced()

    def test_workers_come_back_during_the_capture(quiesced_compile_pool, capture_guard):
        x = torch.randn(64, 1024, device="cuda")
        Captured()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = blocks(x)
            quiesced_compile_pool.wakeup()
        graph.replay()
        assert torch.equal(y.clone(), blocks(x))
        capture_guard.assert_quiesced(capture_guard.captures[:1])
        with pytest.raises(AssertionError, match="during the capture: workers of the compile pool appeared: pid"):
            capture_guard.assert_quiesced(capture_guard.captures[1:])

    def test_by_hand_on_a_side_stream(quiesced_compile_pool, capture_guard):
        captured = Captured(lambda: None)
        captured.by_hand()
        assert captured.replays_right()
        (record,) = capture_guard.captures
        assert record.functions[-1] == "by_hand"
        assert record.ended is not None
        capture_guard.assert_quiesced()

    # The last that uses the GPU: torch's random generator takes itself to be captured from then on.
    def test_a_capture_that_cuda_refuses(quiesced_compile_pool, capture_guard):
        torch.zeros(1, device="cuda")
        with pytest.raises(RuntimeError):
            torch.cuda.CUDAGraph().capture_begin()  # on the default stream
        (record,) = capture_guard.captures
        assert "Error: " in record.failed
        capture_guard.assert_quiesced(at_least=0)
        with pytest.raises(AssertionError, match="0 graph captures were recorded"):
            capture_guard.assert_quiesced()

    def test_nothing_stays():
        for name in ("capture_begin", "capture_end"):
            assert not hasattr(getattr(torch.cuda.CUDAGraph, name), "__wrapped__")
    """


def test_graphs_by_context_and_by_hand(inner):
    result = inner(
        MODEL + BY_CONTEXT_AND_BY_HAND,
        "--compilepool-processes=2",
        timeout=170,
    )
    result.assert_outcomes(passed=8)


def test_graphs_of_torch_compile(inner):
    """`mode="reduce-overhead"` captures by itself: the first call compiles, and a later one records."""
    result = inner(
        MODEL
        + """
    def test_reduce_overhead(compile_pool, fresh_compile_caches, capture_guard):
        compiled = torch.compile(blocks, mode="reduce-overhead")
        x = torch.randn(64, 1024, device="cuda")

        def call():
            torch.compiler.cudagraph_mark_step_begin()
            return compiled(x).clone()

        first = call()
        torch.testing.assert_close(first, blocks(x), rtol=1e-4, atol=1e-4)
        assert compile_pool.jobs.done > 0
        compile_pool.quiesce()
        seen = len(capture_guard.captures)
        results = [call() for _ in range(3)]
        torch.cuda.synchronize()
        assert all(torch.equal(result, first) for result in results)
        recorded = capture_guard.captures[seen:]
        assert recorded, "no later call was recorded as a graph"
        assert all(record.inside("test_reduce_overhead") for record in recorded)
        assert all("test_inner.py:" in record.where for record in recorded)
        capture_guard.assert_quiesced(recorded)
        for record in capture_guard.captures[:seen]:
            assert not record.quiesced
    """,
        "--compilepool-processes=2",
        "--compilepool-leaks=off",
        timeout=170,
    )
    result.assert_outcomes(passed=1)
