# SPDX-License-Identifier: Apache-2.0
"""`CompilePool`: Inductor's compile pool seen from outside, every wait bounded, every state observed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.pool import closing, state
from pytest_compilepool.pool.core import PoolCore
from pytest_compilepool.pool.errors import (
    HIDDEN,
    PoolClosed,
    PoolNotReady,
    PoolTimeout,
    PoolUnsupported,
    SidecarDied,
)
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.targets import BadTarget, triton_target
from pytest_compilepool.torch_compat import pools, registry, settings
from pytest_compilepool.torch_compat.probe import inductor
from pytest_compilepool.words import counted, last_line, seconds

__tracebackhide__ = HIDDEN

T = TypeVar("T")


class CompilePool(PoolCore):
    """One compile pool: parent (this process), sidecar, workers.

    processes: how many workers, at least 2 (torch takes 1 to mean "no pool").
    start_method: `subprocess` (sidecar and forked workers), `fork` or `spawn` (no sidecar, no quiesce).
    ready_timeout, quiesce_timeout, shutdown_timeout: what `wait_ready` and `prime`, `quiesce` and `wakeup`, and `shutdown`
    take when not told. All timeouts are seconds, more than 0 and at most 3600; ValueError says so of any other.
    prime: a target, such as `cuda:90:32`, for which the sidecar compiles a kernel before it forks, so that its
    workers need not initialise Triton each for itself; an empty text for none, and of no effect without a sidecar.

    A context manager: `shutdown()` at the end. Not thread-safe but for `submit`.
    """

    # -- its life ----------------------------------------------------------------------------------

    def warm(self) -> None:
        """Start the sidecar, as torch's `warm_pool()` does; returns long before a kernel can run in it.

        Whatever pool torch held is set aside and put back by `shutdown()`. Raises PoolClosed on a pool
        that was shut down, TorchUnavailable without torch, PoolUnsupported where torch refuses.
        """
        if self._closed:
            raise PoolClosed("this pool was shut down: make a new one")
        if self._pool is not None:
            return
        # torch is imported before its settings are noted, or they could not be put back.
        inductor("async_compile")
        with self._timeline.span("warm") as note:
            self._held = registry.take_out()
            try:
                pool = registry.make_pool(self._wanted, self.start_method, *self._for_sidecar())
            except Exception as error:
                self._give_back()
                if isinstance(error, (OSError, RuntimeError, AssertionError, ValueError)):
                    raise PoolUnsupported(f"torch could not make a pool: {error}") from error
                raise
            self._take_over(pool)
            note(f"{self._wanted} processes, start method {self.start_method}")

    def start_workers(self) -> None:
        """Have the workers forked as soon as the sidecar can; returns at once. `wait_ready` waits for them.

        Raises PoolClosed and SidecarDied.
        """
        self._ready = registry.ready_future(self._living("start_workers"))

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until a worker has answered and all workers live. timeout: seconds.

        Raises PoolNotReady with what was there when the time was over, SidecarDied if it died.
        """
        limit = self.ready_timeout if timeout is None else seconds(timeout, "wait_ready: timeout")
        pool = self._living("wait_ready")
        began = Genuine.monotonic()
        with self._timeline.span("ready"):
            self.start_workers()
            ready = self._ready
            assert ready is not None
            self._await(
                lambda: ready.done(),
                began + limit,
                PoolNotReady,
                f"no worker answered within {limit:g} s",
                ready,
            )
            error = ready.exception()
            if error is not None:
                story = self._explain(pool, error)  # torch says only that the pool is closed
                if isinstance(story, SidecarDied):
                    raise story
                raise PoolNotReady(f"the ready probe failed: {type(error).__name__}: {error}") from error
            if pools.is_sidecar_pool(pool):
                self._await_workers(began + limit, PoolNotReady, limit)
                self._ask_sidecar(began + limit, limit)

    def prime(self, target: str = "", timeout: float | None = None) -> None:
        """Have each worker's first Triton compile behind it: afterwards the state is PRIMED.

        Where the sidecar was primed for that target (`prime=` of this class) there is nothing left to do, and workers
        that are forked later have it as well. Else each worker compiles a kernel now, all at the same time; those that
        are forked later do not have it. Not counted among the jobs.

        target: such as `cuda:90`, or as Triton takes it, `cuda:90:32`; that of the sidecar where it is an empty text;
        timeout: seconds, `ready_timeout` if None; more than one compile takes and the jobs that are on their way.
        Raises BadTarget, PoolTimeout, SidecarDied, PoolNotReady where it is not ready or a worker dies, and PoolUnsupported
        where no kernel can be compiled for that target here.
        """
        limit = self.ready_timeout if timeout is None else seconds(timeout, "prime: timeout")
        if not (target or self._priming.target):
            raise BadTarget("prime: name a target, such as cuda:90: this pool's sidecar was made without one")
        wanted = triton_target(target or self._priming.target, "prime")
        pool = self._living("prime")
        with self._timeline.span("primed") as note:
            deadline = Genuine.monotonic() + limit
            if not self._answered:
                self.wait_ready(limit)
            elif pools.is_sidecar_pool(pool) and not state.find_workers(pool):
                self.wakeup(limit)
            if self._priming.has(wanted, state.find_sidecar(pool), state.find_workers(pool)):
                return note(f"for {wanted} already: {self._priming.said}".rstrip(": "))
            slowest = self._have_them_pay(wanted, deadline, limit)
            note(f"{self.processes} workers for {wanted}, the slowest in {slowest:.2f} s")

    def _have_them_pay(self, target: str, deadline: float, limit: float) -> float:
        """Each worker compiles one kernel. limit: seconds that were given for it, until deadline. Returns the longest."""
        from pytest_compilepool.workloads import primed

        with self._priming.folder() as folder:
            order = (target, folder, self.processes, limit)
            jobs = [self._jobs.submit_unseen(primed.pay, *order) for _ in range(self.processes)]
            for job in jobs:
                message = f"prime: {self.processes} workers had {limit:g} s for a first compile each"
                self._await(job.done, deadline, PoolTimeout, message, job)
            # All have ended: the pool is at rest again, whatever came of it.
            error = next((failed for job in jobs if (failed := job.exception()) is not None), None)
            if isinstance(error, SidecarDied):
                raise error
            if error is not None and "BrokenProcessPool" in str(error):
                raise PoolNotReady(f"prime: a worker has ended: {last_line(error)}") from error
            if error is not None:
                raise PoolUnsupported(f"prime: {target}: {last_line(error)}") from error
        took: list[tuple[int, float]] = [job.result() for job in jobs]
        rows = proctree.table()
        self._priming.paid(target, [rows[pid].key for pid, _ in took if pid in rows])
        return max(seconds for _, seconds in took)

    def _ask_sidecar(self, deadline: float, limit: float) -> None:
        """Whether it is primed, where it was to be: what a worker has inherited."""
        if not self._priming.to_be_asked or self._pool is None:
            return
        from pytest_compilepool.workloads import primed

        job = self._jobs.submit_unseen(primed.where)
        self._await(
            job.done, deadline, PoolNotReady, f"no worker had said within {limit:g} s that it is primed", job
        )
        error = job.exception()
        said = last_line(error) if error is not None else job.result()[0]
        self._priming.told(state.find_sidecar(self._pool), said)
        self._timeline.note("primed by the sidecar", self._priming.said)

    def submit(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Send a job to a worker. fn: importable by name there (not from `__main__`).

        Returns a future with the result, or SidecarDied if the sidecar dies before it is there; raises
        SidecarDied and PoolClosed at once instead of queueing into a dead pool, and what pickling raises.
        """
        pool = self._living("submit")
        inner = pool.submit(fn, *args, **kwargs)
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        inner.add_done_callback(lambda done: self._pass_on(done, outer))
        return outer

    def quiesce(self, timeout: float | None = None) -> None:
        """Let the workers go and wait until they are *gone*; jobs that run finish first.

        timeout: seconds, `quiesce_timeout` if None.
        Raises PoolUnsupported where this pool cannot, PoolTimeout naming who is still there.
        """
        limit = self.quiesce_timeout if timeout is None else seconds(timeout, "quiesce: timeout")
        pool = self._living("quiesce")
        self._need(pool, "quiesce")
        leaving = state.find_workers(pool)
        # A job on its way may have its worker forked after this look: it has to end first.
        under_way = list(pools.pending_jobs(pool).values())
        with self._timeline.span("quiesce") as note:
            began = Genuine.monotonic()
            pool.quiesce()
            called = Genuine.monotonic() - began
            self._await(
                lambda: (
                    all(job.done() for job in under_way)
                    and all(proctree.reaped(key) for key in leaving)
                    and not state.find_workers(pool)
                ),
                began + limit,
                PoolTimeout,
                f"quiesce: {len(leaving)} workers had {limit:g} s to go",
            )
            # A sidecar that is dying has no children any more: nobody to be seen is not yet quiesced.
            self._raise_if_dead(pool)
            self._priming.tidy(None)
            note(f"{len(leaving)} workers gone; the call itself took {called * 1e3:.1f} ms")

    def wakeup(self, timeout: float | None = None) -> None:
        """Fork the workers again and wait until all are there. timeout: seconds, `quiesce_timeout` if None.

        Raises PoolUnsupported where this pool cannot, PoolTimeout otherwise.
        """
        limit = self.quiesce_timeout if timeout is None else seconds(timeout, "wakeup: timeout")
        pool = self._living("wakeup")
        self._need(pool, "wakeup")
        with self._timeline.span("wakeup"):
            began = Genuine.monotonic()
            pool.wakeup()
            self._await_workers(began + limit, PoolTimeout, limit)

    def recycle(self, timeout: float | None = None) -> None:
        """Fresh workers under the same sidecar: quiesce, then wakeup. timeout: seconds for each, as there.

        A pool without a sidecar is shut down and made anew, which is as fresh and slower.
        """
        with self._timeline.span("recycle"):
            pool = self._living("recycle")
            if not pools.is_sidecar_pool(pool):
                self._remake()
                return
            before = set(state.find_workers(pool))
            self.quiesce(timeout)
            self.wakeup(timeout)
            stayed = before & set(state.find_workers(pool))
            if stayed:
                raise PoolTimeout(f"recycle: the same workers are still there: {_pids(stayed)}")

    def shutdown(self, timeout: float | None = None) -> closing.Closed:
        """End the whole tree within a bound: asked, after `timeout` seconds terminated, a second later killed.

        May be called twice. What torch held before `warm()` is put back. Never raises.
        """
        limit = self.shutdown_timeout if timeout is None else timeout
        if Genuine.getpid() != self._maker:
            return closing.Closed("asked", 0.0)  # a fork of its owner: nothing here is ours to end
        if self._pool is None or self._closed:
            self._closed = True
            self._give_back()
            return closing.Closed("asked", 0.0)
        self._closed = True
        self._stop_watch()
        with self._timeline.span("shutdown") as note:
            outcomes = [closing.close_torch_pool(pool, limit) for pool in (self._pool, *self._former)]
            self._former.clear()
            self._give_back()
            self._jobs.close()
            self._priming.tidy(pools.sidecar_pid(self._pool))
            outcome = outcomes[0]
            note(outcome.how + (f" ({outcome.error})" if outcome.error else ""))
        return outcome

    def __enter__(self) -> CompilePool:
        self.warm()
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    # -- leases: the same sidecar for one test after the other ---------------------------------------

    def park(self, jobs: float = 5.0, timeout: float | None = None) -> None:
        """Let the workers go and take the pool out of torch's hands; the sidecar waits.

        jobs: seconds that pending jobs have to finish; timeout: seconds for `quiesce`, as there.
        torch then holds what it held before. Raises what `quiesce` raises; PoolTimeout if jobs are pending.
        """
        pool = self._living("park")
        self._await(
            lambda: not pools.pending_jobs(pool),
            Genuine.monotonic() + jobs,
            PoolTimeout,
            f"the pending {counted(len(pools.pending_jobs(pool)), 'job')} of a test that is over had {jobs:g} s to finish",
        )
        self.quiesce(timeout)
        self._give_back()

    def start_ahead(self) -> None:
        """Start sidecar and workers and return at once, the pool in nobody's hands: `lease` gives it to torch.

        Raises what `warm` raises.
        """
        self.warm()
        self.start_workers()
        self._give_back()
        self._timeline.note("started ahead", "in nobody's hands until it is leased")
        self._unused = True

    def lease(self) -> None:
        """Give a parked pool to torch again, with fresh workers and counts and timeline begun anew.

        Its jobs are given the cache folders that are in effect now; everything else that a worker inherits is as it
        was when the sidecar was started (`pool/needs.py` says what that is).
        A pool that was started ahead is waited for until it is ready. Raises what `wakeup` and `wait_ready` raise.
        """
        pool = self._living("lease")
        if not self._unused:
            self._timeline.clear()
            self._jobs.clear()
        self._unused = False
        self._held = registry.take_out()
        registry.install(pool, self._ready)
        settings.set_config("worker_start_method", self.start_method)
        settings.set_config("compile_threads", self._wanted)
        if self._answered:
            self.wakeup()
        else:
            self.wait_ready()

    def _for_sidecar(self) -> tuple[Any, dict[str, str]]:
        return self._priming.for_sidecar() if self.start_method == "subprocess" else (None, {})

    def _remake(self) -> None:
        pool = self._pool
        if pool is not None:
            closing.close_torch_pool(pool, self.shutdown_timeout)
        fresh = registry.make_pool(self._wanted, self.start_method, *self._for_sidecar())
        self._take_over(fresh)
        self.wait_ready()


def _pids(keys: set[ProcessKey]) -> str:
    return ", ".join(str(key.pid) for key in sorted(keys))
