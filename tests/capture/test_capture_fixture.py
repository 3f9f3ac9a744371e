# SPDX-License-Identifier: Apache-2.0
"""The fixture `capture_guard` in whole sessions, with the plugin's pools and with torch's own."""

from __future__ import annotations

import importlib.util

import pytest

STAND_IN = """
    import pytest

    class Graph:
        def capture_begin(self): pass
        def capture_end(self): pass

    def capture():
        graph = Graph()
        graph.capture_begin()
        graph.capture_end()
"""


POOLS = """
    def test_early(compile_pool, capture_guard):
        capture_guard.watch(Graph)
        capture()
        capture_guard.assert_quiesced()

    def test_other_order(capture_guard, compile_pool):
        capture_guard.watch(Graph)
        capture()
        with pytest.raises(AssertionError, match="compile pool READY"):
            capture_guard.assert_quiesced()
        compile_pool.quiesce()
        capture()
        capture_guard.assert_quiesced(capture_guard.captures[1:])

    def test_parked(capture_guard):
        capture_guard.watch(Graph)
        capture()
        capture_guard.assert_quiesced()
        assert "QUIESCED: torch does not hold it" in capture_guard.describe()

    def test_quiesced(quiesced_compile_pool, capture_guard):
        capture_guard.watch(Graph)
        capture()
        capture_guard.assert_quiesced()

    def test_a_pool_that_no_fixture_made(capture_guard, tmp_path):
        from torch._inductor import config
        from torch._inductor.async_compile import AsyncCompile, shutdown_compile_workers
        from pytest_compilepool.workloads import jobs

        before = config.compile_threads
        config.compile_threads = 2
        started, go = str(tmp_path / "started"), str(tmp_path / "go")
        try:
            capture_guard.watch(Graph)
            AsyncCompile.warm_pool()
            pool = AsyncCompile.process_pool()
            future = pool.submit(jobs.touch_and_wait_for, started, go, 60)
            jobs.wait_for(started, 60)
            capture()
            jobs.touch(go)
            worker = future.result(60)
            pool.quiesce()
            with pytest.raises(AssertionError) as caught:
                capture_guard.assert_quiesced()
            text = str(caught.value)
            assert "compile pool BUSY: 1 job has no result yet" in text
            assert f"sidecar pid {pool.process.pid}" in text
            assert worker in capture_guard.captures[0].pools[0].workers
            assert str(worker) in text
        finally:
            shutdown_compile_workers()
            config.compile_threads = before

    def test_nothing_stays():
        import torch

        for graph in (Graph, torch.cuda.CUDAGraph):
            assert not hasattr(graph.capture_begin, "__wrapped__")
            assert not hasattr(graph.capture_end, "__wrapped__")
    """


@pytest.mark.usefixtures("pool_here")
def test_the_fixture_with_pools_of_fixtures_and_of_torch(inner):
    result = inner(
        STAND_IN + POOLS,
        # torch leaves two pipe ends of a pool that it has shut down itself (2.8 to 2.13): that is its own affair.
        "--compilepool-leaks=off",
        "--compilepool-processes=2",
    )
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_early*",
            "E *AssertionError: 1 of 1 graph captures did not find the compile pool quiesced: number 1",
            "E *compile pool READY: 2 workers wait for jobs; sidecar pid *",
            "E *stack of the capture (most recent call last):",
            "E *test_inner.py*in test_early*",
            "*- cuda graph captures -*",
            "1 captures",
            "capture 1 at *test_inner.py:* in capture (thread MainThread)",
        ]
    )
    # The failure is shown where the test asked, not inside of us.
    result.stdout.no_fnmatch_line("*capture.py:*: AssertionError*")


def test_without_a_pool_and_without_torch(inner):
    """Nothing is imported for it, and a test that does not fail shows nothing."""
    result = inner(
        STAND_IN
        + """
    import sys

    def test_passes(capture_guard):
        capture_guard.watch(Graph)
        capture()
        capture_guard.assert_quiesced()
        assert "torch" not in sys.modules

    def test_fails_before_it_captured_anything(capture_guard):
        capture_guard.assert_quiesced()

    def test_is_undone():
        assert not hasattr(Graph.capture_begin, "__wrapped__")
        assert not [finder for finder in sys.meta_path if "torch.cuda.graphs" in getattr(finder, "_wanted", ())]
    """,
        "--compilepool-leaks=off",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["E *0 graph captures were recorded*proves nothing", "*- cuda graph captures -*", "0 captures"]
    )


def test_a_rerun_shows_only_its_own_captures(inner):
    result = inner(
        STAND_IN
        + """
    def test_fails(capture_guard):
        capture_guard.watch(Graph)
        capture()
        raise RuntimeError("planted")
    """,
        "--compilepool-leaks=off",
        conftest="""
            from pytest import hookimpl

            @hookimpl(tryfirst=True)
            def pytest_runtest_protocol(item, nextitem):
                if hasattr(item, "ran"):
                    return None
                item.ran = True
                item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
                item._initrequest()
                item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
                return True
        """,
    )
    result.assert_outcomes(failed=2)
    assert result.stdout.str().count("- cuda graph captures -") == 2


def test_the_leak_check_looks_at_a_test_that_uses_it(inner):
    """In its default mode, as with every other fixture."""
    # Not importorskip: what is imported while there is a pytester is forgotten with it, and torch dies of a second time.
    if importlib.util.find_spec("torch") is None:
        pytest.skip("in mode auto there is no leak check without torch")
    result = inner(
        """
        import os

        def test_leaks(capture_guard):
            os.environ["PLANTED"] = "1"
        """
    )
    result.stdout.fnmatch_lines(["*environ: PLANTED*"])
