# SPDX-License-Identifier: Apache-2.0
"""What state a pool is in, observed from two sides: torch's object, and the process tree."""

from __future__ import annotations

from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.proctree import Proc
from pytest_compilepool.records import PoolState, PoolStatus, ProcessKey
from pytest_compilepool.torch_compat import pools
from pytest_compilepool.words import counted


def find_workers(pool: Any, rows: dict[int, Proc] | None = None) -> list[ProcessKey]:
    """The live workers of a pool: children of its sidecar, or of this process for fork and spawn pools.

    Helpers of multiprocessing (the resource tracker of a spawn pool) and zombies do not count.
    """
    rows = proctree.table() if rows is None else rows
    if pools.is_sidecar_pool(pool):
        parent = pools.sidecar_pid(pool)
        candidates = [row for row in rows.values() if row.parent == parent and not row.dead]
        return [row.key for row in candidates if not _is_helper(row)]
    known = set(pools.executor_pids(pool))
    return [row.key for row in rows.values() if row.pid in known and not row.dead]


def _is_helper(row: Proc) -> bool:
    return any("resource_tracker" in part for part in proctree.command(row.pid))


def find_sidecar(pool: Any) -> ProcessKey | None:
    """The sidecar if the pool has one that runs; asking also reaps it where it has ended."""
    if not pools.is_sidecar_pool(pool) or pools.sidecar_exit(pool) is not None:
        return None
    row = proctree.lookup(pools.sidecar_pid(pool) or -1)
    return None if row is None or row.dead else row.key


def observe(
    pool: Any | None,
    *,
    was_ready: bool,
    closed: bool,
    ended: str | None,
    rows: dict[int, Proc] | None = None,
    primed: frozenset[ProcessKey] = frozenset(),
) -> PoolStatus:
    """Look at a pool now.

    pool: torch's object or None; was_ready: a job has been answered since it was made; closed: it was
    shut down on purpose; ended: how the sidecar ended, in words, where a watcher has seen it; rows: what
    `proctree.table()` gave a moment ago, read here unless given; primed: processes that have compiled a Triton kernel
    already: workers, or the sidecar, whose workers inherit that.
    """
    if pool is None:
        return PoolStatus(PoolState.ABSENT, "torch holds no compile pool", "no pool", "no sidecar")
    running = pools.is_running(pool)
    pending = len(pools.pending_jobs(pool))
    torch_says = f"{'running' if running else 'closed'}, {pending} pending"
    if pools.is_sidecar_pool(pool):
        sidecar = find_sidecar(pool)
        workers = find_workers(pool, rows) if sidecar is not None else []
        os_says = f"sidecar {'pid ' + str(sidecar.pid) if sidecar else 'gone'}, {len(workers)} workers"
        if sidecar is None and (closed or pools.was_shut_down(pool)):
            return PoolStatus(PoolState.CLOSED, "it was shut down", torch_says, os_says)
        if sidecar is not None and _stopped([sidecar, *workers]):
            reason = f"stopped by a signal: {_stopped([sidecar, *workers])}; no job can run until SIGCONT"
            return PoolStatus(PoolState.BROKEN, reason, torch_says, os_says)
        if sidecar in primed:
            primed = frozenset(workers)
        if sidecar is None:
            reason = ended or f"sidecar pid {pools.sidecar_pid(pool)} is gone and torch says {torch_says}"
            return PoolStatus(PoolState.BROKEN, reason, torch_says, os_says)
    else:
        workers = find_workers(pool, rows)
        os_says = f"{len(workers)} workers, no sidecar"
        if closed and not workers:
            return PoolStatus(PoolState.CLOSED, "it was shut down", torch_says, os_says)
    if not running:
        reason = f"torch says the pool is closed, but of its processes there are: {os_says}"
        return PoolStatus(PoolState.BROKEN, reason, torch_says, os_says)
    state, reason = _living(pool, pending, len(workers), was_ready)
    if state is PoolState.READY and workers and primed.issuperset(workers):
        state, reason = PoolState.PRIMED, f"{reason}, and have a first Triton compile behind them"
    return PoolStatus(state, reason, torch_says, os_says)


def _stopped(keys: list[ProcessKey]) -> str:
    """The sidecar, or all of the workers, if they are stopped (SIGSTOP, a debugger): their pids, else nothing."""
    rows = [proctree.lookup(key.pid) for key in keys]
    stopped = [row is not None and row.state in ("T", "t") for row in rows]
    if not stopped[0] and not (len(keys) > 1 and all(stopped[1:])):
        return ""
    return ", ".join(str(key) for key, held in zip(keys, stopped, strict=True) if held)


def _living(pool: Any, pending: int, workers: int, was_ready: bool) -> tuple[PoolState, str]:
    if not was_ready:
        return PoolState.STARTING, "no worker has answered yet: the sidecar imports torch, or forks"
    if pending:
        return PoolState.BUSY, f"{counted(pending, 'job has', 'jobs have')} no result yet"
    if workers:
        return PoolState.READY, f"{workers} workers wait for jobs"
    if not pools.is_sidecar_pool(pool):
        return PoolState.READY, "its workers start with the next job"
    if pools.quiesce_was_sent(pool) is False:
        return PoolState.QUIESCED, "no worker is alive though no quiesce was sent: they ended by themselves"
    return PoolState.QUIESCED, "the workers are gone, the sidecar waits"
