# SPDX-License-Identifier: Apache-2.0
"""torch's pools: real ones, planted and innocent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.pools import PoolChecker
from pytest_compilepool.leaks.processes import adopt_orphans, stop_adopting

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no compile pool there")


@pytest.fixture
def async_compile(inductor: Any, torch_environment: None) -> Iterator[Any]:
    """`AsyncCompile`, with two workers configured and no pool; what is there afterwards is shut down."""
    import torch._inductor.config as config

    assert torch_compat.live_pools() == [], "another test has left a pool"
    # A short period for the quiesce timer, where there is one: its thread sleeps through half of it.
    settings = {"compile_threads": 2, "quiesce_async_compile_time": 4}
    with config.patch({name: value for name, value in settings.items() if hasattr(config, name)}):
        yield inductor.AsyncCompile
        inductor.shutdown_compile_workers()


class TestPlanted:
    def test_compile_pool_with_all_that_comes_with_it(self, async_compile: Any) -> None:
        """One forgotten pool, seen by everybody; and put right so that nobody sees anything any more."""
        previous = adopt_orphans()
        checkers = census.builtin_checkers(Owned())
        before = census.measure(checkers)
        async_compile.process_pool()
        async_compile.wait_pool_ready()
        verdict = census.compare(checkers, before, 0.0)
        found = {leak.checker: leak.key for leak in verdict.leaks}
        texts = "\n".join(
            c.format(leak) for leak in verdict.leaks for c in checkers if c.name == leak.checker
        )
        assert {"pools", "processes", "threads", "fds"} <= set(found)
        keys = [leak.key for leak in verdict.leaks if leak.checker == "processes"]
        assert keys.count("sidecar") == 1
        assert keys.count("worker") == 2
        assert "compile pool (sidecar and workers), sidecar pid " in texts
        assert "torch will use it for the next compile" in texts
        assert "torch's reader of a compile pool's results" in texts
        census.restore(checkers, [*verdict.leaks, *verdict.silent])
        again = census.compare(checkers, before, 5.0)
        assert not again.leaks, [(leak.checker, leak.after) for leak in again.leaks]
        stop_adopting(previous)

    def test_executor(self, account: Any, async_compile: Any) -> None:
        import torch._inductor.config as config

        own = account(PoolChecker(Owned()))
        with config.patch(worker_start_method="fork"):
            async_compile.process_pool()
        leak, text = own.leak("executor")
        assert "2 processes" in leak.after
        assert 'allow=["pools:executor"]' in text
        own.restore()
        own.assert_clean(0.0)
        assert torch_compat.live_pools() == []

    def test_precompile_threads(self, account: Any, async_compile: Any) -> None:
        import torch._inductor.autotune_process as autotune

        if not hasattr(autotune, "PrecompileThreadPool"):
            pytest.skip("this torch has no precompile threads")
        own = account(PoolChecker(Owned()))
        autotune.PrecompileThreadPool.get_instance()
        assert "precompile threads" in own.leak("precompile_threads")[0].after
        own.restore()
        own.assert_clean(0.0)

    def test_autotune_pool(self, account: Any, async_compile: Any) -> None:
        import torch._inductor.autotune_process as autotune

        if not hasattr(autotune, "AutotuneProcessPool"):
            pytest.skip("this torch has no autotune pool")
        own = account(PoolChecker(Owned()))
        autotune.AutotuneProcessPool.get_instance()
        own.leak("autotune")
        own.restore()
        own.assert_clean(0.0)


class TestInnocent:
    def test_shut_down_by_the_test(self, account: Any, async_compile: Any, inductor: Any) -> None:
        import torch._inductor.config as config

        own = account(PoolChecker(Owned()))
        with config.patch(worker_start_method="fork"):
            async_compile.process_pool()
        inductor.shutdown_compile_workers()
        assert own.leaks() == []

    def test_owned(self, account: Any, async_compile: Any) -> None:
        import torch._inductor.config as config

        pools: set[int] = set()
        own = account(PoolChecker(Owned(pools=lambda: pools)))
        with config.patch(worker_start_method="fork"):
            pools.add(id(async_compile.process_pool()))
        assert own.leaks() == []

    def test_threads_for_cpp_kernels(self, account: Any, async_compile: Any) -> None:
        own = account(PoolChecker(Owned()))
        async_compile.pool()
        try:
            assert [ref.kind for ref in torch_compat.live_pools()] == ["cpp_threads"]
            assert own.leaks() == []
        finally:
            async_compile.pool().shutdown()
            async_compile.pool.cache_clear()

    def test_pool_of_before(self, account: Any, async_compile: Any) -> None:
        import torch._inductor.config as config

        with config.patch(worker_start_method="fork"):
            async_compile.process_pool()
        own = account(PoolChecker(Owned()))
        assert own.leaks() == []

    def test_snapshot_refers_to_no_pool(self, async_compile: Any) -> None:
        import torch._inductor.config as config

        with config.patch(worker_start_method="fork"):
            async_compile.process_pool()
        snapshot = PoolChecker(Owned()).measure()
        assert snapshot
        parts = [part for key, value in snapshot.items() for part in (*key, *value)]  # type: ignore[misc]
        assert all(isinstance(part, (str, int, type(None))) for part in parts)
