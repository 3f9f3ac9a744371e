# SPDX-License-Identifier: Apache-2.0
"""What the pools of a test did, and what was compiled past them in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import ClassVar

from pytest_compilepool.counters.counts import Distinct
from pytest_compilepool.counters.source import CounterSource
from pytest_compilepool.pool.errors import PoolError
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.records import JobRecord, Jobs
from pytest_compilepool.torch_compat import CompileWatch, counters, pools

_SETTLE = 1.0  # seconds for a job that has a result to be counted as done

_JOBS = ("jobs_submitted", "jobs_done", "jobs_failed", "jobs_cancelled")
_IN_PROCESS = "in_process_compiles"


class PoolSource(CounterSource):
    """`pool.jobs_submitted`, `pool.workers_used`, `pool.in_process_compiles`, ...

    pools: gives the pools of the test, now. Between `start()` and `stop()` it listens to Triton in this process.
    """

    name: ClassVar[str] = "pool"

    def __init__(self, pools: Callable[[], Iterable[CompilePool]]) -> None:
        self._pools = pools
        self._watch = CompileWatch()
        self._earlier: set[tuple[int, int]] = set()

    def start(self) -> None:
        """The test begins: from now on Triton's compiles in this process are counted."""
        self._watch.start()
        self._earlier = {(id(pool), job.number) for pool in self._pools() for job in pool.job_records}

    def stop(self) -> None:
        """End that; may be called twice."""
        self._watch.stop()

    def read(self) -> Mapping[str, int]:
        total = Jobs()
        doings: set[tuple[Hashable, Hashable]] = set()
        for pool in self._pools():
            settle(pool)
            total += pool.jobs
            doings |= {
                ((id(pool), job.number), job.worker) for job in pool.job_records if job.worker is not None
            }
        told: dict[str, int] = {f"jobs_{kind}": getattr(total, kind) for kind in _kinds()}
        told["workers_used"] = Distinct.of(frozenset(doings))
        if not self._watch.deaf:
            told[_IN_PROCESS] = sum(not compiled.cached for compiled in self._watch.compiles)
        return told

    def known(self) -> Collection[str]:
        return (*_JOBS, "workers_used", *([] if self._watch.deaf else [_IN_PROCESS]))

    def explain(self, name: str) -> str:
        return _DEAF if name == _IN_PROCESS and self._watch.deaf else ""

    def stamp(self) -> object:
        return counters.unwatched_jobs()

    def doubt(self, name: str, since: object) -> str:
        if name == _IN_PROCESS:
            # Triton may have been imported only meanwhile.
            return _DEAF if self._watch.deaf else ""
        before: dict[int, int] = since if isinstance(since, dict) else {}
        if any(sent > before.get(pool, 0) for pool, sent in counters.unwatched_jobs().items()):
            return "not all: jobs went to a pool that torch made by itself (use the fixture compile_pool)"
        return ""

    def by_worker(self) -> dict[int | None, list[JobRecord]]:
        """Every job since `start()` by the pid of the worker that took it up; None for those that nobody did."""
        found: dict[int | None, list[JobRecord]] = {}
        for pool in self._pools():
            for job in pool.job_records:
                if (id(pool), job.number) not in self._earlier:
                    found.setdefault(job.worker, []).append(job)
        return dict(sorted(found.items(), key=lambda pair: (pair[0] is None, pair[0] or 0)))


_DEAF = "this Triton tells nobody of its compiles (3.4 and later do)"


def _kinds() -> list[str]:
    return [name.partition("_")[2] for name in _JOBS]


def settle(pool: CompilePool, timeout: float = _SETTLE) -> None:
    """Wait, for at most `timeout` seconds, until every job that has a result is counted as done or failed.

    A future wakes who waits for it before it calls those who count.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        waiting = pool.jobs.pending
        if not waiting:
            return
        try:
            sent = pools.pending_jobs(pool.torch_pool)
        except PoolError:
            return  # closed or dead: nothing will be counted any more
        if waiting <= sum(not future.done() for future in sent.values()):
            return
        time.sleep(0.001)
