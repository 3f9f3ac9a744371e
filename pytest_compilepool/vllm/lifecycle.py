# SPDX-License-Identifier: Apache-2.0
"""The life of the compile pool in one vLLM worker: from before its model is loaded until it is shut down."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from pytest_compilepool import vllm_compat
from pytest_compilepool.pool.errors import PoolError
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.records import Jobs, PoolState
from pytest_compilepool.torch_compat import pools
from pytest_compilepool.torch_compat.gate import Gate
from pytest_compilepool.vllm.events import EventLog
from pytest_compilepool.vllm.remembered import Remembered
from pytest_compilepool.vllm.settings import Settings

# A child of vLLM's own logger, so that what is said here stands where its messages stand.
log = logging.getLogger("vllm.pytest_compilepool")

_QUIESCE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 5.0


class Lifecycle:
    """The keeper of the gate between torch's compiles and the pool, and what the worker's hooks call.

    processes: workers of the pool, at least 2; settings: what was asked for; events: where it is written down;
    prime: the target of its kernels, or an empty text (see `CompilePool`).
    No method raises: whatever fails ends the pool, with one warning, and kernels are compiled in this process.
    """

    def __init__(self, processes: int, settings: Settings, events: EventLog, prime: str = "") -> None:
        self.events = events
        self._settings = settings
        self._pool = CompilePool(
            processes,
            ready_timeout=settings.ready_timeout,
            shutdown_timeout=_SHUTDOWN_SECONDS,
            prime=prime,
        )
        self._gate = Gate(self)
        self._lock = threading.RLock()
        self._started = self._over = self._capturing = self._waited = self._late = self._serving = False
        self._kernels: dict[str, int] = {}

    # -- what the hooks call ---------------------------------------------------------------------------

    def is_for(self, settings: Settings) -> bool:
        """Whether it lives, and was made for the same."""
        return not self._over and self._settings == settings

    def ahead(self, when: str) -> None:
        """Before it is known for which worker: the sidecar is started, nothing else. when: see `begin`."""
        self._start(when)

    def begin(self, remembered: Remembered, when: str) -> None:
        """Before the worker is made: the sidecar is started, but where a start from artifacts is expected.

        when: in which method of vLLM's that is.
        """
        self._remembered = remembered
        self._late = not self._started and remembered.has_artifacts()
        self._gate.install()
        if self._late:
            self._note("deferred", reason="this configuration has started from artifacts before")
        else:
            self._start(when)

    def attached(self, **found: Any) -> None:
        """The device is initialised and the hooks are on. found: on what."""
        self._note("attached", **found)

    def loaded(self) -> None:
        """The model is loaded."""
        self._note("loaded")

    def before_capture(self, where: str) -> None:
        """CUDA graphs are about to be captured: not one worker may live, nor be forked, until `after_capture`."""
        self._capturing = True
        self._quiesce(where)
        self._note("capture", where=where, workers=len(self._workers()))

    def after_capture(self, where: str) -> None:
        """They are captured."""
        self._capturing = False
        self._note("captured", where=where, workers=len(self._workers()))

    def warmed_up(self) -> None:
        """The engine is about to serve: what no kernel has used is ended, the rest waits without a worker."""
        self._quiesce("the end of warm-up")
        self._serving = True
        self._note("warmed-up", kernels=self.kernels, jobs=self.jobs.submitted)
        if vllm_compat.saved_or_loaded_artifacts():
            self._remembered.remember()
        elif {"pool", "process", "rescued"} & set(self.kernels):
            self._remembered.forget()

    def end(self) -> None:
        """The worker is shut down."""
        with self._lock:
            if not self._over:
                self._close()
            self._gate.remove()

    # -- what may be asked -----------------------------------------------------------------------------

    @property
    def pool(self) -> CompilePool:
        """The facade of the pool."""
        return self._pool

    @property
    def kernels(self) -> dict[str, int]:
        """How many kernels there were, by where they were compiled: "pool", "process", "rescued" or "cache"."""
        with self._lock:
            return dict(self._kernels)

    @property
    def jobs(self) -> Jobs:
        """What the pool was given."""
        return self._pool.jobs

    # -- the keeper ------------------------------------------------------------------------------------

    def is_over(self) -> bool:
        """Whether its pool has been ended, or given up."""
        return self._over

    def coming(self) -> bool:
        """A compile may want kernels. A sidecar that was kept back waits for the first that is in no artifact.

        While the engine serves, workers are forked for a kernel, and not for a compile that may be without one.
        """
        if not self._capturing and not self._late:
            self._start("at the first compile")
        return not self._serving

    def is_open(self) -> bool:
        """Whether there is a pool that may be used now."""
        return self._in_use() and self._pool.sidecar is not None

    def admit(self) -> bool:
        """The same for the next kernel, after waiting, once, for the pool to be ready.

        One that was started late is not waited for: it is ready when this process alone would be done, as a rule.
        """
        if self._capturing:
            return False
        with self._lock:
            self._start("at the first kernel")
            if self._in_use():
                self._look_after()
            return self.is_open()

    def compiled(self, kernel: str, where: str) -> None:
        """Count it. While the engine serves, workers go again with the last kernel that they owe."""
        with self._lock:
            self._kernels[where] = self._kernels.get(where, 0) + 1
            if self._serving and self._in_use() and where == "pool" and not self._owes():
                self._quiesce("after kernels while serving")

    def failed(self, kernel: str, error: BaseException) -> None:
        """A pool that owes a kernel is not asked for another."""
        self._give_up(f"kernel {kernel}: {type(error).__name__}: {error}")

    def job_seconds(self) -> float:
        """As VLLM_COMPILE_POOL_JOB_TIMEOUT has it."""
        return self._settings.job_timeout

    # -- inside ----------------------------------------------------------------------------------------

    def _in_use(self) -> bool:
        return self._started and not self._over and not self._capturing

    def _owes(self) -> bool:
        try:
            jobs = pools.pending_jobs(self._pool.torch_pool)
        except PoolError:
            return False
        # torch takes a job from its table a moment after it has given the result.
        return any(not job.done() for job in jobs.values())

    def _look_after(self) -> None:
        """Before a kernel is sent: the pool lives, and has been ready once."""
        try:
            self._pool.torch_pool  # noqa: B018 (raises where the sidecar is dead)
        except PoolError as error:
            self._give_up(_cause(error))
            return
        if not self._waited and not self._late:
            self._wait_ready()

    def _start(self, when: str) -> None:
        with self._lock:
            if self._started or self._over:
                return
            self._started = True
            began = time.monotonic()
            try:
                self._pool.warm()
                # Forked once the sidecar has its imports behind it, while this process goes on.
                self._pool.start_workers()
            except Exception as error:  # also what a machine says that can start no thread
                self._give_up(_cause(error))
                return
            sidecar = self._pool.sidecar
            self._note(
                "warm",
                time.monotonic() - began,
                when=when,
                processes=self._pool.processes,
                sidecar=sidecar and sidecar.pid,
            )

    def _wait_ready(self) -> None:
        """Only a worker's answer says that it works: where the sidecar lacks memory, starting it looked well."""
        self._waited = True
        began = time.monotonic()
        try:
            self._pool.wait_ready()
        except PoolError as error:
            self._give_up(_cause(error))
            return
        self._note("ready", time.monotonic() - began, workers=[key.pid for key in self._workers()])

    def _quiesce(self, where: str) -> None:
        with self._lock:
            if not self._started or self._over:
                return
            if not self.jobs.submitted:
                self._close("no kernel was compiled")  # a warm start, as a rule: nothing will come
                return
            if self._pool.state is PoolState.QUIESCED:
                return
            began = time.monotonic()
            try:
                self._pool.quiesce(_QUIESCE_SECONDS)
            except PoolError as error:
                self._give_up(_cause(error))
                return
            self._note("quiesce", time.monotonic() - began, where=where)

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if self._over:
                return
            first = reason.splitlines()[0]
            self._note("fallback", reason=first)
            log.warning("the compile pool is given up, kernels are compiled in this process: %s", first)
            self._close()

    def _close(self, reason: str = "") -> None:
        with self._lock:
            self._over = True
            if self._started:
                kernels, jobs = self.kernels, self.jobs.submitted
                closed = self._pool.shutdown(_SHUTDOWN_SECONDS)
                left = [key.pid for key in closed.survivors]
                self._note(
                    "shutdown",
                    closed.took,
                    how=closed.how,
                    kernels=kernels,
                    jobs=jobs,
                    left=left,
                    reason=reason,
                )

    def _workers(self) -> list[Any]:
        return [] if self._over or not self._started else self._pool.workers

    def _note(self, what: str, took: float | None = None, **detail: Any) -> None:
        state = PoolState.ABSENT if not self._started else self._pool.state
        said = bool(self.events.trouble)
        self.events.note(what, state.value, took, **detail)
        if self.events.trouble and not said:
            log.warning("events of the compile pool are not written down: %s", self.events.trouble)


def _cause(error: BaseException) -> str:
    """What happened, without the advice to a test that goes with it."""
    return str(error).split(". The next test")[0].split("; nobody had")[0]


def describe(processes: int, why: str) -> str:
    """What vLLM's log says when a pool is going to be used."""
    return f"compile pool: {processes} processes ({why})"
