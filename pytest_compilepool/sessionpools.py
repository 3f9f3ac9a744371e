# SPDX-License-Identifier: Apache-2.0
"""The pools of one test session: how many processes they get, who asks the manager for one, what became of them.

Loaded when somebody asks for the first time: a session that starts no pool pays for none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_compilepool.options import Settings
from pytest_compilepool.pool.policy import BadProcesses, BadStartMethod, Decision, decide
from pytest_compilepool.runrecord import TestRecord
from pytest_compilepool.sessionguard import SessionGuard
from pytest_compilepool.xdist import sharers

# Deciding needs no manager, and the line in pytest's header only decides.
if TYPE_CHECKING:
    from pytest_compilepool.pool.facade import CompilePool
    from pytest_compilepool.pool.manager import PoolManager, Request
    from pytest_compilepool.torch_compat import Capabilities

HURRIED_SECONDS = 0.5
"""For all pools together at the end of a session that Ctrl-C ends; else it is an option, for xdist gives a worker ten."""


class SessionPools:
    """One per session; see `Session.pools`."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        guard: SessionGuard,
        started_with: Callable[[], Mapping[str, str]],
    ) -> None:
        """guard: is started before a pool is; started_with: gives the environment that this process was started with."""
        self._config = config
        self._settings = settings
        self._guard = guard
        self._started_with = started_with
        self._manager: PoolManager | None = None
        self._started_ahead = 0

    @property
    def manager(self) -> PoolManager:
        """Who makes, shares and closes them."""
        if self._manager is None:
            from pytest_compilepool.pool.manager import PoolManager

            self._manager = PoolManager(self._settings.jobs_timeout)
        return self._manager

    @property
    def handed_out(self) -> list[CompilePool]:
        """The pools that `compile_pool_factory` has made in this session."""
        return [] if self._manager is None else self._manager.handed_out

    # -- asking ----------------------------------------------------------------------------------------

    def decide(
        self,
        at_least: int = 1,
        *,
        ini: str | int | None = None,
        marker: int | None = None,
        start_method: str | None = None,
        capabilities: Capabilities | None = None,
    ) -> Decision:
        """How many processes a pool would have, torch not being looked at. Raises pytest.UsageError.

        at_least: 2 for a test that asks for a pool; ini: in the place of the ini option; marker: what the test's says;
        start_method: in the place of the option's; capabilities: of the torch that was looked at.
        """
        try:
            return decide(
                capabilities=capabilities,
                ini=self._settings.processes_ini if ini is None else ini,
                flag=self._settings.processes_flag,
                marker=marker,
                at_least=at_least,
                start_method=start_method or self._settings.start_method,
                started_with=self._started_with(),
                sharers=sharers(self._config),
            )
        except (BadProcesses, BadStartMethod) as error:
            raise pytest.UsageError(str(error)) from None

    def described(self) -> str:
        """For a header line: how many processes, why, and the start method. Raises pytest.UsageError."""
        decision = self.decide()
        processes = f"{decision.processes} processes"
        if decision.processes == 1:
            asked = self.decide(at_least=2).processes
            processes = "1 process" + (f", {asked} for a test that asks for a pool" if asked > 1 else "")
        return f"{processes} ({decision.why}), start method {decision.start_method}"

    def request(self, decision: Decision, ready_timeout: float | None) -> Request:
        """What a fixture asks the manager for. ready_timeout: seconds, that of the options if None."""
        from pytest_compilepool.pool.manager import Request

        return Request(
            decision.processes,
            decision.start_method,
            ready_timeout or self._settings.ready_timeout,
            self._settings.quiesce_timeout,
            self._settings.shutdown_timeout,
            self._settings.prime or "",
        )

    # -- before the test that they are for -------------------------------------------------------------

    def start_ahead(self, request: Request, in_a_test: bool) -> None:
        """Start a pool for a test that is still to come. Raises what CompilePool raises."""
        self._guard.start()
        self.manager.start_ahead(request)
        if not in_a_test:
            # The first test that has a report takes it into it.
            self._started_ahead += self.manager.take_tally().started

    def end_ahead(self) -> None:
        """End what was started ahead, if anything was."""
        if self._manager is not None:
            self._manager.end_ahead()

    # -- after -----------------------------------------------------------------------------------------

    def note(self, record: TestRecord) -> int:
        """Write into the record of a test what happened since the last one. Returns how many pools it has started."""
        if self._manager is None:
            return 0
        tally = self._manager.take_tally()
        record.started, record.reasons = tally.started + self._started_ahead, tally.reasons
        record.ahead = tally.ahead
        self._started_ahead = 0
        record.add_news(*self._manager.take_news())
        return tally.started

    def hurry(self) -> None:
        """Somebody has pressed Ctrl-C: nothing is waited for any more."""
        if self._manager is not None:
            self._manager.hurry = True

    def close(self, total: TestRecord) -> None:
        """End all of them, and add to the total of the session what no test has told."""
        if self._manager is None:
            return
        limit = self._settings.end_timeout
        self._manager.close_all(min(HURRIED_SECONDS, limit) if self._manager.hurry else limit)
        total.add_news(*self._manager.take_news())
        # By a test that Ctrl-C left without a report, or for one that was not run.
        total.started += self._manager.take_tally().started + self._started_ahead
