# SPDX-License-Identifier: Apache-2.0
"""What a pool costs here, on this torch: the figures that decide whether it is worth having.

Every figure is one measurement on a pool of its own; for comparisons run it several times.
"""

from __future__ import annotations

import operator
import time
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.bench.workloads import as_triton
from pytest_compilepool.pool.facade import CompilePool

IDLE_SECONDS = 5.0  # how long the quiesced sidecar is watched
SETTLE_SECONDS = 2.0  # its own bookkeeping after a quiesce is not idleness


def measure_pool(
    processes: int,
    start_method: str = "subprocess",
    *,
    ready_timeout: float = 120.0,
    idle_seconds: float = IDLE_SECONDS,
    prime: str = "",
    kernel_for: str = "",
) -> dict[str, Any]:
    """Warm a pool, use it, quiesce it, shut it down, and time each step.

    processes: workers, at least 2; idle_seconds: how long the quiesced sidecar is watched, 0 for not at all; prime: the
    target, such as `cuda:90:32`, for which the pool is primed, an empty text for none; kernel_for: the target for which
    a worker compiles a kernel, which is its first unless it was primed, an empty text for none.

    Returns seconds (`*_s`), megabytes (`*_mb`, 10**6 bytes) and numbers by name; a figure that this torch cannot give is
    None. Raises what CompilePool raises.
    """
    pool = CompilePool(processes, start_method, ready_timeout=ready_timeout, prime=prime)
    try:
        return _measured(pool, idle_seconds, prime, kernel_for)
    finally:
        pool.shutdown()


def _measured(pool: CompilePool, idle_seconds: float, prime: str, kernel_for: str) -> dict[str, Any]:
    figures: dict[str, Any] = {"processes": pool.processes, "start_method": pool.start_method}
    figures["warm_pool_s"] = _timed(pool.warm)
    figures["ready_s"] = _timed(pool.wait_ready)
    if prime:
        figures["primed_s"] = _timed(pool.prime)
    figures["first_job_s"] = _timed(lambda: pool.submit(operator.add, 1, 1).result(pool.ready_timeout))
    figures["job_round_trip_s"] = _timed(lambda: pool.submit(operator.add, 1, 1).result(pool.ready_timeout))
    figures |= _memory(pool)
    if kernel_for:
        figures["first_kernel_s"] = _timed(lambda: _first_kernel(pool, kernel_for))
    if hasattr(pool.torch_pool, "quiesce"):
        figures |= _quiesced(pool, idle_seconds)
    figures["shutdown_s"] = pool.shutdown().took
    return figures


def _first_kernel(pool: CompilePool, target: str) -> None:
    from pytest_compilepool.workloads import triton_kernels

    job = pool.submit(triton_kernels.compile_kernel, "row_sum", as_triton(target))
    job.result(pool.ready_timeout)


def _quiesced(pool: CompilePool, idle_seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    leaving = pool.workers
    began = time.monotonic()
    pool.torch_pool.quiesce()
    figures["quiesce_call_s"] = time.monotonic() - began
    left = proctree.wait_gone(leaving, pool.ready_timeout)
    figures["workers_gone_s"] = None if left else time.monotonic() - began
    sidecar = pool.sidecar
    if sidecar is not None and idle_seconds:
        figures["sidecar_cpu_after_quiesce_s"] = _idle_cpu(sidecar.pid, idle_seconds)
        figures["idle_watched_s"] = idle_seconds
    figures["first_job_after_quiesce_s"] = _timed(
        lambda: pool.submit(operator.add, 1, 1).result(pool.ready_timeout)
    )
    pool.wakeup()
    figures["recycle_s"] = _timed(pool.recycle)
    return figures


def _idle_cpu(pid: int, seconds: float) -> float | None:
    """CPU seconds that a process uses in that time. Time itself is what is waited for here."""
    time.sleep(SETTLE_SECONDS)
    before = proctree.cpu_seconds(pid)
    time.sleep(seconds)
    after = proctree.cpu_seconds(pid)
    return None if before is None or after is None else after - before


def _memory(pool: CompilePool) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    sidecar = pool.sidecar
    if sidecar is not None:
        figures |= _megabytes("sidecar", [proctree.memory(sidecar.pid)])
    return figures | _megabytes("worker", [proctree.memory(key.pid) for key in pool.workers])


def _megabytes(name: str, values: list[tuple[int, int] | None]) -> dict[str, Any]:
    """The largest USS and RSS of the processes that could be read."""
    known = [value for value in values if value is not None]
    if not known:
        return {f"{name}_uss_mb": None, f"{name}_rss_mb": None}
    return {
        f"{name}_uss_mb": round(max(uss for uss, _ in known) / 1e6, 1),
        f"{name}_rss_mb": round(max(rss for _, rss in known) / 1e6, 1),
    }


def _timed(step: Any) -> float:
    began = time.monotonic()
    step()
    return time.monotonic() - began
