# SPDX-License-Identifier: Apache-2.0
"""The pools of one test session: one sidecar shared by the tests whose needs are equal, others on demand."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.pool.errors import HIDDEN, PoolError, SidecarDied
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.pool.needs import Needs, current_needs, differences
from pytest_compilepool.records import Event, Jobs, PoolState

__tracebackhide__ = HIDDEN

_USABLE = (PoolState.STARTING, PoolState.QUIESCED, PoolState.READY, PoolState.PRIMED)
_AFTER_PARK = 1.0  # seconds for what has had those already
_HURRIED = 0.2  # seconds for either


@dataclass(frozen=True)
class Request:
    """What a fixture wants. processes: workers; the timeouts are in seconds; prime: see `CompilePool`."""

    processes: int
    start_method: str = "subprocess"
    ready_timeout: float = 60.0
    quiesce_timeout: float = 10.0
    shutdown_timeout: float = 10.0
    prime: str = ""

    @property
    def needs(self) -> Needs:
        """What it asks of a sidecar, now."""
        return current_needs(self.processes, self.start_method, self.prime)


@dataclass
class Tally:
    """What happened since somebody last looked: for the report of one test. ahead: pools that were started before the
    test that they were for, and handed to it."""

    started: int = 0
    ahead: int = 0
    reasons: list[str] = field(default_factory=list)


class PoolManager:
    """Makes, shares and closes the pools of a session. Everything it made is closed by `close_all()`.

    jobs_timeout: seconds for the jobs of a test that is over; then its pool is ended.
    """

    def __init__(self, jobs_timeout: float = 5.0) -> None:
        self._jobs_timeout = jobs_timeout
        self._shared: CompilePool | None = None
        self._shared_needs: Needs | None = None
        self._ahead: list[tuple[Needs, CompilePool]] = []
        self._made: list[CompilePool] = []
        self._owned: set[int] = set()
        self._ended: list[CompilePool] = []
        self._owner = Genuine.getpid()
        self.hurry = False  # somebody has pressed Ctrl-C: jobs are not waited for
        self.tally = Tally()

    # -- pools -------------------------------------------------------------------------------------

    def make(self, request: Request, *, owned: bool = True) -> CompilePool:
        """A pool with a sidecar of its own, warm and ready. Raises what CompilePool raises.

        owned: the session answers for it; else it counts as made by whoever asked, and is a leak if left.
        """
        if owned and (ahead := self._take_ahead(request.needs)) is not None:
            return ahead
        pool = self.blank(request, owned=owned)
        try:
            pool.warm()
            pool.wait_ready()
        except BaseException:
            pool.shutdown()
            raise
        return pool

    def blank(self, request: Request, *, owned: bool = True) -> CompilePool:
        """A pool that is not warmed yet, registered here so that it is closed in any case. owned: see make."""
        pool = CompilePool(
            request.processes,
            request.start_method,
            ready_timeout=request.ready_timeout,
            quiesce_timeout=request.quiesce_timeout,
            shutdown_timeout=request.shutdown_timeout,
            prime=request.prime,
        )
        self._made.append(pool)
        if owned:
            self._owned.add(id(pool))
        self.tally.started += 1
        return pool

    def start_ahead(self, request: Request) -> None:
        """Start the next pool, for whoever is the first to need one like it. Raises what CompilePool raises."""
        pool = self.blank(request)
        try:
            pool.start_ahead()
        except BaseException:
            self.discard(pool)
            raise
        self._ahead.append((request.needs, pool))

    @property
    def ahead(self) -> list[CompilePool]:
        """Pools that were started and that nobody has used yet."""
        return [pool for _, pool in self._ahead]

    @property
    def shares(self) -> bool:
        """Whether there is a sidecar that the next test may be given."""
        return self._shared is not None

    def _take_ahead(self, needs: Needs) -> CompilePool | None:
        """The pool that was started ahead, ready, if these needs are its; else it is ended, and the tally says why."""
        if not self._ahead:
            return None
        its_needs, pool = self._ahead.pop()
        reasons = differences(its_needs, needs)
        if not reasons and self._can_lease(pool):
            self.tally.ahead += 1
            return pool
        reasons = reasons or [f"it was {pool.status.reason}"]
        self.tally.reasons += [f"the one that was started ahead was not used: {reason}" for reason in reasons]
        self.discard(pool, _HURRIED)
        return None

    def fits_ahead(self, request: Request) -> bool:
        """Whether what was started ahead, if anything was, is what is asked for now."""
        return all(needs == request.needs for needs, _ in self._ahead)

    def end_ahead(self) -> None:
        """End what was started ahead: nobody will need it."""
        while self._ahead:
            self.discard(self._ahead.pop()[1], _HURRIED)

    def acquire(self, request: Request) -> CompilePool:
        """The shared pool with fresh workers, made or made anew where need be. Raises what CompilePool raises."""
        needs = request.needs
        pool = self._shared
        if pool is not None and self._shared_needs is not None:
            reasons = differences(self._shared_needs, needs)
            if not reasons and self._can_lease(pool):
                return pool
            self.tally.reasons += reasons or [f"the last one was {pool.status.reason}"]
            self._drop_shared()
        pool = self.make(request)
        if request.start_method == "subprocess":
            self._shared, self._shared_needs = pool, needs
        return pool

    def _can_lease(self, pool: CompilePool) -> bool:
        if not pool.parked or pool.state not in _USABLE:
            return False
        try:
            pool.lease()
        except PoolError as error:
            self.tally.reasons.append(str(error).splitlines()[0])
            return False
        return True

    def release(self, pool: CompilePool) -> SidecarDied | None:
        """After a test: park the shared pool, close any other. Returns a death that nobody was told of."""
        if Genuine.getpid() != self._owner:
            return None  # a fork of the session: the pool is its parent's
        untold = pool.untold_death()
        kept = pool is self._shared and not pool.replaced and pool.death is None
        if kept and pool.state is not PoolState.CLOSED:
            try:
                pool.park(*((_HURRIED, _HURRIED) if self.hurry else (self._jobs_timeout, None)))
            except SidecarDied as error:
                self._drop_shared()
                return error
            except PoolError as error:
                self.tally.reasons.append(str(error).splitlines()[0])
                self._drop_shared(_HURRIED if self.hurry else _AFTER_PARK)
            return untold
        if pool is self._shared:
            self._drop_shared()
        else:
            self.discard(pool)
        return untold

    def discard(self, pool: CompilePool, timeout: float | None = None) -> None:
        """Close a pool for good. timeout: seconds that it may take to end by itself, its own if None."""
        pool.shutdown(timeout)
        if pool in self._made:
            self._made.remove(pool)
            self._ended.append(pool)
            self._owned.discard(id(pool))

    def _drop_shared(self, timeout: float | None = None) -> None:
        pool, self._shared, self._shared_needs = self._shared, None, None
        if pool is not None:
            self.discard(pool, timeout)

    def close_all(self, within: float | None = None) -> None:
        """End every pool that was made here; the youngest first, as each puts back what it found.

        within: seconds that all of them together may take to end by themselves; if None, each its own.
        """
        if Genuine.getpid() != self._owner:
            return
        self._shared = self._shared_needs = None
        self.end_ahead()
        deadline = None if within is None else Genuine.monotonic() + within
        for pool in list(reversed(self._made)):
            left = None if deadline is None else max(0.1, deadline - Genuine.monotonic())
            self.discard(pool, left if left is None else min(left, pool.shutdown_timeout))

    @property
    def handed_out(self) -> list[CompilePool]:
        """Pools that somebody asked for who ends them, `compile_pool_factory`'s; also those that have ended."""
        return [pool for pool in self._made if id(pool) not in self._owned]

    def take_tally(self) -> Tally:
        """What was counted since the last call."""
        tally, self.tally = self.tally, Tally()
        return tally

    def take_news(self) -> tuple[list[Event], Jobs]:
        """What happened to all of its pools since the last call, to those that have ended too."""
        events: list[Event] = []
        jobs = Jobs()
        for pool in (*self._made, *self._ended):
            new_events, new_jobs = pool.take_news()
            events += new_events
            jobs += new_jobs
        self._ended.clear()
        return events, jobs

    # -- what it owns, for the leak checkers -----------------------------------------------------------

    def _answered_for(self) -> list[CompilePool]:
        return [pool for pool in self._made if id(pool) in self._owned]

    def owned_pids(self) -> set[int]:
        """Processes of its pools; those of a parked pool are the sidecar's alone."""
        found: set[int] = set()
        for pool in self._answered_for():
            sidecar = pool.sidecar
            if sidecar is not None and pool.start_method == "subprocess":
                found.add(sidecar.pid)
                found.update(row.pid for row in proctree.descendants(sidecar.pid))
            else:
                found |= pool.owned_pids
        return found

    def owned_threads(self) -> set[int]:
        """Threads of its pools."""
        return set().union(*(pool.owned_threads for pool in self._answered_for()))

    def owned_fds(self) -> set[int]:
        """File descriptors of its pools."""
        return set().union(*(pool.owned_fds for pool in self._answered_for()))

    def owned_pools(self) -> set[int]:
        """`id()` of torch's objects behind its pools."""
        return set().union(*(pool.owned_objects for pool in self._answered_for()))

    @property
    def idle(self) -> bool:
        """Whether it holds no pool at all."""
        return not self._made
