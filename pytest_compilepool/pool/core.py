# SPDX-License-Identifier: Apache-2.0
"""What a compile pool is, observed: processes, state, jobs, timeline, and how its sidecar died if it did."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.pool import closing, forks, state
from pytest_compilepool.pool.errors import HIDDEN, PoolClosed, PoolUnsupported, SidecarDied, describe_exit
from pytest_compilepool.pool.joblog import JobLog, Timeline
from pytest_compilepool.pool.priming import Priming
from pytest_compilepool.pool.watcher import DeathWatch
from pytest_compilepool.records import Event, JobRecord, Jobs, PoolState, PoolStatus, ProcessKey
from pytest_compilepool.torch_compat import PoolRef, live_pools, memoised_pool, pools, registry
from pytest_compilepool.torch_compat.timers import make_timer_prompt
from pytest_compilepool.words import counted, seconds

__tracebackhide__ = HIDDEN

_SLICE = 0.05  # seconds between two looks at the process tree while something else is waited for
_STORY = 1.0  # seconds in which a death that one thread has noticed is written down


class PoolCore:
    """The observing half of `CompilePool`; see there. Nothing here starts or ends a process."""

    def __init__(
        self,
        processes: int,
        start_method: str = "subprocess",
        *,
        ready_timeout: float = 60.0,
        quiesce_timeout: float = 10.0,
        shutdown_timeout: float = 10.0,
        prime: str = "",
    ) -> None:
        if processes < 2:
            raise ValueError(f"a compile pool has at least 2 processes, not {processes}: 1 means no pool")
        self.start_method = start_method
        self.ready_timeout = seconds(ready_timeout, "ready_timeout")
        self.quiesce_timeout = seconds(quiesce_timeout, "quiesce_timeout")
        self.shutdown_timeout = seconds(shutdown_timeout, "shutdown_timeout")
        self._wanted = processes
        self._priming = Priming(prime)
        self._pool: Any | None = None
        self._former: list[Any] = []
        self._held: registry.TakenOut | None = None
        self._ready: Future[Any] | None = None
        self._watch: DeathWatch | None = None
        self._closed = False
        self._unused = False  # started ahead, and nobody has had it yet
        self._maker = Genuine.getpid()
        self._ended: SidecarDied | None = None
        self._told = threading.Event()
        self._writing = threading.Lock()
        self._timeline = Timeline()
        self._jobs = JobLog(self._timeline, tells_caches=True)

    # -- what it is --------------------------------------------------------------------------------

    @property
    def processes(self) -> int:
        """How many workers the pool is configured to have."""
        return (None if self._pool is None else pools.configured_processes(self._pool)) or self._wanted

    @property
    def sidecar(self) -> ProcessKey | None:
        """The sidecar, or None where there is none (not started, dead, or a fork or spawn pool)."""
        self._follow()
        return None if self._pool is None else state.find_sidecar(self._pool)

    @property
    def workers(self) -> list[ProcessKey]:
        """The workers that live now."""
        self._follow()
        return [] if self._pool is None else state.find_workers(self._pool)

    @property
    def status(self) -> PoolStatus:
        """The state with its reason, as torch's own object and as the process tree have it."""
        self._follow()
        ended = str(self._ended) if self._ended is not None else None
        return state.observe(
            self._pool,
            was_ready=self._answered,
            closed=self._closed,
            ended=ended,
            primed=self._priming.done,
        )

    @property
    def state(self) -> PoolState:
        """What the pool is seen to be now: looked up on every access."""
        return self.status.state

    @property
    def jobs(self) -> Jobs:
        """Jobs since `warm()` or the last lease, however they were submitted; torch's ready probe is not one."""
        self._follow()
        return self._jobs.counts()

    @property
    def job_records(self) -> list[JobRecord]:
        """The same jobs one by one: what each was, when, and the pid of the worker that did it."""
        self._follow()
        return self._jobs.records()

    @property
    def pending_records(self) -> list[JobRecord]:
        """Those without a result. Unlike the other looks it changes nothing, even if torch made another pool."""
        return self._jobs.pending()

    @property
    def timeline(self) -> list[Event]:
        """What happened to this pool, when (`time.monotonic()`) and how long it took (seconds)."""
        return self._timeline.events()

    def take_news(self) -> tuple[list[Event], Jobs]:
        """Events and jobs since the last call; what a report of one test is made of."""
        return self._timeline.take_news(), self._jobs.take_news()

    @property
    def other_pools(self) -> list[PoolRef]:
        """Pools of this process that are not this one, in torch's registry or not."""
        return [ref for ref in live_pools() if ref.object is not self._pool]

    @property
    def torch_pool(self) -> Any:
        """torch's own object, for what this facade does not cover. Raises PoolClosed before `warm()`."""
        return self._living("torch_pool")

    @property
    def death(self) -> SidecarDied | None:
        """How the sidecar ended if nobody asked it to, else None."""
        return self._ended

    @property
    def death_was_told(self) -> bool:
        """Whether that error reached somebody: a job that waited, or a call of this object."""
        return self._told.is_set()

    def untold_death(self) -> SidecarDied | None:
        """The death that nobody was told of, or None; a sidecar that died this moment is noticed, too."""
        if self._pool is not None and not self._closed and state.find_sidecar(self._pool) is None:
            self._await_story()
        return None if self._told.is_set() else self._ended

    @property
    def _answered(self) -> bool:
        ready = self._ready
        return ready is not None and ready.done() and not ready.cancelled() and ready.exception() is None

    def describe(self) -> str:
        """State, witnesses and process tree in a few lines, for messages."""
        status = self.status
        lines = [
            f"state {status.state}: {status.reason}",
            f"  torch says: {status.torch_says}; the process tree shows: {status.os_says}",
        ]
        if self._pool is not None:
            rows = proctree.table()
            for key in closing.process_tree(self._pool):
                row = rows.get(key.pid)
                if row is not None:
                    command = " ".join(proctree.command(key.pid))[:80]
                    lines.append(f"  pid {row.pid} parent {row.parent} state {row.state} {command}")
        return "\n".join(lines)

    @property
    def replaced(self) -> bool:
        """Whether torch has made itself another pool since this one was warmed."""
        return bool(self._former)

    @property
    def parked(self) -> bool:
        """Whether the pool lives but torch does not hold it."""
        return self._pool is not None and not self._closed and self._held is None

    @property
    def owned_pids(self) -> set[int]:
        """Processes of this pool."""
        return set() if self._pool is None else {key.pid for key in closing.process_tree(self._pool)}

    @property
    def owned_threads(self) -> set[int]:
        """Threads of this process that serve this pool."""
        own = set() if self._watch is None else self._watch.threads
        return own if self._pool is None else own | pools.pool_threads(self._pool)

    @property
    def owned_fds(self) -> set[int]:
        """File descriptors of this process that serve this pool."""
        own = self._jobs.fds | (set() if self._watch is None else self._watch.fds)
        return own if self._pool is None else own | pools.pool_fds(self._pool)

    @property
    def owned_objects(self) -> set[int]:
        """`id()` of torch's pool objects behind this one."""
        return {id(pool) for pool in (self._pool, *self._former) if pool is not None}

    # -- inside --------------------------------------------------------------------------------------

    def _take_over(self, pool: Any) -> None:
        """Make one of torch's pools the pool of this object: watched, counted, its timer made endable."""
        self._pool, self._ready = pool, None
        self._priming.forget()
        setattr(pool, pools.OWNER, self)
        forks.protect(pool)
        self._ended = None
        self._told.clear()
        # torch itself submits and wakes, too: whoever it is, "closed pool" is not all that there is to say.
        pools.explain_errors(pool, lambda error: self._explain(pool, error))
        self._jobs.attach(pool)
        make_timer_prompt(pool)
        pools.close_sidecar_ends(pool)
        pid = pools.sidecar_pid(pool)
        row = None if pid is None else proctree.lookup(pid)
        if row is not None:
            self._watch = DeathWatch(row.key, lambda: self._on_death(pool, row.key))

    def _follow(self) -> None:
        """If torch has made itself another pool meanwhile, that one is the pool now."""
        if self._closed or self._held is None:
            return
        current = memoised_pool()
        if current is None or current is self._pool or getattr(current, pools.OWNER, self) is not self:
            return
        if self._pool is not None:
            self._former.append(self._pool)
        self._stop_watch()
        self._timeline.note("replaced", f"torch made another pool, sidecar pid {pools.sidecar_pid(current)}")
        self._take_over(current)
        # Whoever made it has asked for it; torch's own probe says when it is ready.
        self._ready = registry.ready_future(current)

    def _on_death(self, pool: Any, key: ProcessKey) -> None:
        """In the watch's thread: say how the sidecar ended to everybody who waits, and end its orphans."""
        if self._closed or pool is not self._pool:
            return
        if pools.was_shut_down(pool):
            self._timeline.note("shut down", "by torch or the test, not by this facade")
            return
        if not pools.is_running(pool):
            # torch's reader was faster and fails the jobs itself: _explained says there what they get.
            pools.join_reader(pool, _STORY)
        error = self._obituary(pool, len(pools.pending_jobs(pool)))
        if pools.fail_pending(pool, error):
            self._told.set()
        orphans = [row.key for row in closing.orphaned_workers(pool, proctree.table())]
        closing.end_processes(orphans)
        closing.reap_adopted(orphans)
        self._priming.tidy(key.pid)
        self._timeline.note("sidecar died", f"{error}; {len(orphans)} orphaned workers ended")

    def _obituary(self, pool: Any, pending: int) -> SidecarDied:
        """How the sidecar ended: written once, by the thread that notices first. pending: jobs."""
        with self._writing:
            if self._ended is None:
                self._ended = SidecarDied(
                    f"the compile pool's sidecar (pid {pools.sidecar_pid(pool)}) "
                    f"{describe_exit(pools.await_sidecar_exit(pool, _STORY))} with {counted(pending, 'job')} pending; "
                    "nobody had shut the pool down. The next test gets a new pool; TORCHINDUCTOR_COMPILE_THREADS=1 compiles "
                    "without one"
                )
            return self._ended

    def _living(self, what: str) -> Any:
        if Genuine.getpid() != self._maker:
            raise PoolClosed(f"{what}: this pool belongs to process {self._maker}; this is a fork of it")
        self._follow()
        if self._closed:
            raise PoolClosed(f"{what}: this pool was shut down")
        if self._pool is None:
            raise PoolClosed(f"{what}: this pool was not warmed yet: call warm() first")
        self._raise_if_dead(self._pool)
        return self._pool

    def _raise_if_dead(self, pool: Any) -> None:
        if pools.was_shut_down(pool):
            raise PoolClosed(
                "somebody else shut this pool down (shutdown_compile_workers()?); torch makes a new one "
                "with the next compile"
            )
        if pools.is_sidecar_pool(pool) and pools.sidecar_exit(pool) is not None and not self._closed:
            self._await_story()
            self._told.set()
            raise self._ended or SidecarDied(
                f"the compile pool's sidecar (pid {pools.sidecar_pid(pool)}) "
                f"{describe_exit(pools.sidecar_exit(pool))}"
            )

    def _await_story(self) -> None:
        """The watch has the whole story of a death; it needs a moment to write it down."""
        if self._watch is not None:
            self._watch.wait(_STORY)

    def _need(self, pool: Any, what: str) -> None:
        if not hasattr(pool, what):
            kind = (
                "a torch without it" if pools.is_sidecar_pool(pool) else f"start method {self.start_method}"
            )
            raise PoolUnsupported(f"this pool cannot {what}: {kind}")

    def _await(
        self,
        done: Callable[[], bool],
        deadline: float,
        error: type[Exception],
        message: str,
        future: Future[Any] | None = None,
    ) -> None:
        """Wait for a condition; where a future will wake us, on it, else in short looks."""
        pause = 0.001
        while not done():
            pool = self._pool
            if pool is not None:
                self._raise_if_dead(pool)
            left = deadline - Genuine.monotonic()
            if left <= 0:
                raise error(f"{message}\n{self.describe()}")
            if future is not None:
                wait([future], timeout=min(_SLICE, left))
            else:
                Genuine.sleep(min(pause, left))
                pause = min(pause * 2, _SLICE / 5)

    def _await_workers(self, deadline: float, error: type[Exception], limit: float) -> None:
        pool = self._pool
        self._await(
            lambda: len(state.find_workers(pool)) >= self.processes,
            deadline,
            error,
            f"{self.processes} workers had {limit:g} s to start",
        )

    def _pass_on(self, inner: Future[Any], outer: Future[Any]) -> None:
        # A pool that is shut down cancels what waits: the future that was handed out must end, too.
        error = CancelledError() if inner.cancelled() else inner.exception()
        if error is None:
            outer.set_result(inner.result())
            return
        pool = self._pool
        outer.set_exception(error if pool is None else self._explain(pool, error))

    def _explain(self, pool: Any, error: BaseException) -> BaseException:
        """An error of a job, or the story behind it if the sidecar died: torch says only "closed"."""
        if not isinstance(error, SidecarDied):
            failed = pools.is_sidecar_pool(pool) and not pools.is_running(pool)
            if self._closed or not failed or pools.was_shut_down(pool):
                return error
            # torch 2.15 has all copies of the pipe closed, so its reader sees the end of file while the
            # sidecar is still dying: a moment later there is an exit status.
            if pools.await_sidecar_exit(pool, _STORY) is None:
                return error
            # This job has been counted as failed already; it was pending when the sidecar died.
            story = self._obituary(pool, self._jobs.counts().pending + 1)
            story.__cause__ = error
            error = story
        self._told.set()
        return error

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def _give_back(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._hand_on(held):
            registry.put_back(held)

    def _hand_on(self, held: registry.TakenOut) -> bool:
        """Where torch holds a younger pool, which holds this one: that is who puts back what was here before."""
        younger = getattr(memoised_pool(), pools.OWNER, None)
        while younger is not None and younger is not self and younger._held is not None:
            if younger._held.memoised is self._pool:
                younger._held = held
                return True
            younger = getattr(younger._held.memoised, pools.OWNER, None)
        return False
