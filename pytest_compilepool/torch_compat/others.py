# SPDX-License-Identifier: Apache-2.0
"""Pools that torch's registry does not know: FX compile, autotuning, precompile and C++ threads.

Each function takes any pool object of `live_pools()` and looks at what it is.
"""

from __future__ import annotations

import atexit
import sys
from typing import Any

from pytest_compilepool.torch_compat import pools, registry


def _inner(pool: Any) -> Any | None:
    """The executor inside AutotuneProcessPool (`_pool`) or PrecompileThreadPool (`_executor`)."""
    return getattr(pool, "_pool", None) or getattr(pool, "_executor", None)


def process_ids(pool: Any) -> list[int]:
    """Pids of the processes that a pool started itself: its sidecar, its workers, or its tuning processes."""
    sidecar = pools.sidecar_pid(pool)
    found = [sidecar] if sidecar is not None else []
    found += pools.executor_pids(pool) + pools.executor_pids(_inner(pool))
    for worker in getattr(pool, "processes", None) or ():
        pid = getattr(getattr(worker, "process", None), "pid", None)
        if isinstance(pid, int):
            found.append(pid)
    return found


def thread_ids(pool: Any) -> set[int]:
    """Identifiers of the threads of this process that belong to a pool, to the executor in it too."""
    found = pools.pool_threads(pool)
    for inner in (_inner(pool), getattr(pool, "executor", None)):
        if inner is not None:
            found |= pools.pool_threads(inner)
    return found


def ask_to_shut_down(pool: Any) -> None:
    """torch's own way to end this pool. May block for minutes (300 s in a sidecar pool) and may raise."""
    if pools.is_sidecar_pool(pool):
        pool.shutdown()
        return
    inner = _inner(pool)
    if inner is not None:
        timer = getattr(pool, "_timer", None)
        if timer is not None:
            timer.quit()
        inner.shutdown(wait=True, cancel_futures=True)
    elif hasattr(pool, "processes") and hasattr(pool, "process_queue"):
        pool.shutdown()
    else:
        pool.shutdown(wait=True, cancel_futures=True)


def forget(pool: Any) -> None:
    """Make torch forget a closed pool of whatever kind, exit handlers included."""
    registry.forget(pool)
    for name in ("shutdown", "_shutdown"):
        handler = getattr(pool, name, None)
        if handler is not None:
            atexit.unregister(handler)
    autotune = sys.modules.get("torch._inductor.autotune_process")
    for owner in ("AutotuneProcessPool", "PrecompileThreadPool"):
        cls = getattr(autotune, owner, None)
        if cls is not None and getattr(cls, "_instance", None) is pool:
            cls._instance = None
    fx = getattr(sys.modules.get("torch._inductor.compile_fx_subproc"), "_SubprocessFxCompile", None)
    async_compile = getattr(sys.modules.get("torch._inductor.async_compile"), "AsyncCompile", None)
    for maker in (
        getattr(fx, "process_pool", None),
        getattr(autotune, "get_tuning_process_pool", None),
        getattr(autotune, "get_tuning_thread_pool", None),
        getattr(async_compile, "pool", None),
        getattr(async_compile, "thread_pool", None),
    ):
        if maker is not None and pools.cached(maker) is pool:
            maker.cache_clear()
