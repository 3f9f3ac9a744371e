# SPDX-License-Identifier: Apache-2.0
"""Every pool of this process at one moment, for the price of one process table; the look changes nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.pool import state
from pytest_compilepool.proctree import Proc
from pytest_compilepool.records import JobRecord, PoolState
from pytest_compilepool.torch_compat import PoolRef, live_pools, looks, others, pools
from pytest_compilepool.words import counted

_SIDECARS = ("compile", "fx_compile", "executor")
"""Kinds whose state is observed; of the others torch's object tells nothing but workers and jobs."""


@dataclass(frozen=True)
class PoolLook:
    """What one pool was doing.

    kind: as `PoolRef.kind` has it; state, reason: as `CompilePool.status` has them; workers: pids of the live
    ones, without the sidecar's; pending: how many jobs had no result; sidecar: its pid or None; sent: how many
    jobs it was ever sent, None where that cannot be told; threads: names of the threads of this process that
    serve it; jobs: the pending jobs one by one where the pool has a `CompilePool`, else nothing; processes:
    whether it consists of processes at all; key: equal for two looks at the same pool.
    """

    kind: str
    state: PoolState
    reason: str
    workers: tuple[int, ...] = ()
    pending: int = 0
    sidecar: int | None = None
    sent: int | None = None
    threads: tuple[str, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    processes: bool = True
    key: int = field(default=0, repr=False)

    @property
    def awake(self) -> bool:
        """Whether this pool could take CPU time from others: workers that live, or jobs that are on their way."""
        return self.processes and bool(self.workers or self.pending)

    def __str__(self) -> str:
        parts = [f"{self.kind} pool {self.state}: {self.reason}"]
        if self.sidecar is not None:
            parts.append(f"sidecar pid {self.sidecar}")
        if self.workers:
            parts.append(f"workers pid {', '.join(map(str, self.workers))}")
        parts.append(counted(self.pending, "job") + " pending")
        return "; ".join(parts)


def look_at_pools() -> tuple[PoolLook, ...]:
    """Look at every pool that this process has now, threads included, and those that torch does not hold."""
    rows = proctree.table()
    names = {thread.ident: thread.name for thread in threading.enumerate() if thread.ident is not None}
    seen = [_look(ref, rows, names) for ref in live_pools()]
    known = {pid for look in seen for pid in (look.sidecar, *look.workers)}
    return (*seen, *_set_aside(rows, known))


def _look(ref: PoolRef, rows: dict[int, Proc], names: dict[int, str]) -> PoolLook:
    pool = ref.object
    sidecar = ref.pid if pools.is_sidecar_pool(pool) else None
    workers = _workers(ref, rows)
    pending = looks.pending(pool)
    if ref.kind in _SIDECARS:
        answered = looks.has_answered(pool)
        if answered is None:
            answered = bool(workers) or pools.quiesce_was_sent(pool) is True
        told = state.observe(pool, was_ready=answered, closed=False, ended=None, rows=rows)
        now, reason = told.state, told.reason
    else:
        now = (
            PoolState.BUSY
            if pending
            else PoolState.READY
            if workers or not ref.owns_processes
            else PoolState.QUIESCED
        )
        reason = f"{len(workers)} processes" if ref.owns_processes else "threads of this process"
    owner = getattr(pool, pools.OWNER, None)
    return PoolLook(
        ref.kind,
        now,
        reason,
        tuple(workers),
        pending,
        sidecar,
        looks.jobs_sent(pool),
        tuple(sorted(names[ident] for ident in others.thread_ids(pool) if ident in names)),
        () if owner is None else tuple(owner.pending_records),
        ref.owns_processes,
        sidecar or id(pool),
    )


def _workers(ref: PoolRef, rows: dict[int, Proc]) -> list[int]:
    if ref.kind in _SIDECARS:
        return sorted(key.pid for key in state.find_workers(ref.object, rows))
    return sorted(pid for pid in others.process_ids(ref.object) if pid in rows and not rows[pid].dead)


def _set_aside(rows: dict[int, Proc], known: set[int | None]) -> list[PoolLook]:
    """Sidecars of this process that torch does not hold now: parked between tests, under a younger pool, forgotten."""
    parent = f"--parent={Genuine.getpid()}"
    found = []
    for row in rows.values():
        if row.parent != Genuine.getpid() or row.pid in known or row.dead:
            continue
        command = proctree.command(row.pid)
        if parent not in command or not any(part.startswith("--workers=") for part in command):
            continue
        workers = tuple(
            sorted(child.pid for child in rows.values() if child.parent == row.pid and not child.dead)
        )
        now = PoolState.READY if workers else PoolState.QUIESCED
        found.append(PoolLook("compile", now, "torch does not hold it", workers, 0, row.pid, key=row.pid))
    return found
