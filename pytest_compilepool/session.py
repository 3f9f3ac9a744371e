# SPDX-License-Identifier: Apache-2.0
"""One test session: which of its rooms is told what, and when. The hooks hand over to here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_compilepool import marks
from pytest_compilepool.conformance.feature import ATTRIBUTE as FEATURE
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.keys import FAILED, NOTES, REFUSED, SESSION, forget
from pytest_compilepool.options import Settings, read_settings
from pytest_compilepool.report import conformance
from pytest_compilepool.report.terminal import Summary
from pytest_compilepool.room import Room
from pytest_compilepool.runrecord import PROPERTY, TestRecord
from pytest_compilepool.sessionguard import SessionGuard
from pytest_compilepool.torch_compat.installed import inductor_loaded, installed_version, torch_available
from pytest_compilepool.xdist import (
    not_grouped,
    started_with_of_run,
    tell_worker,
    told_to_controller,
    worker_names,
)

# Whoever uses nothing of this plugin pays for nothing of it: the rooms below are entered on first use.
if TYPE_CHECKING:
    from pytest_compilepool.leakwatch import LeakWatch
    from pytest_compilepool.pool.blocker import Birth, PoolRegister
    from pytest_compilepool.prestart import Prestart
    from pytest_compilepool.records import Leak
    from pytest_compilepool.report.cellfile import CellFile
    from pytest_compilepool.sessionpools import SessionPools
    from pytest_compilepool.suite import Suite
    from pytest_compilepool.timeouts import Timeouts

CANNOT_SPREAD = (
    "--compilepool-gpus=spread: this xdist worker had initialised CUDA before its first test, with all GPUs; a conftest.py "
    "or a plugin did: have it do so in a fixture"
)

BLOCKED = (
    "this test started a compile pool without asking for one, and --compilepool-block is on: use the "
    "fixture compile_pool (or another of the compile-pool fixtures), or mark the test with "
    "@pytest.mark.compilepool()"
)


class Session:
    """What the hooks share. Made in `pytest_configure`, in every xdist worker too; found with `of(config)`."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings: Settings = read_settings(config)
        self.has_torch = torch_available()
        self.summary = Summary()
        self.verdicts = conformance.Verdicts(self.settings.mode, self.settings.ci)
        self.cell_file = self._cell_file()
        self._at_start = dict(os.environ)
        self._register: PoolRegister | None = None
        self._pools: SessionPools | None = None
        self._leaks: LeakWatch | None = None
        self._suite: Suite | None = None
        self._prestart: Prestart | None = None
        self._waiting: pytest.Item | None = None
        self.run_of_workers = ""  # xdist's name of the run, where this is its controller
        self._owner = Genuine.getpid()
        self.guard = SessionGuard(config, self.summary.errors.append)
        self._timeouts: Timeouts | None = None
        self.room = Room(config, self.settings.exclusive_timeout)
        self._cannot_spread = False

    @staticmethod
    def of(config: pytest.Config) -> Session:
        """The session of a config that has been configured."""
        return config.stash[SESSION]

    @property
    def pools(self) -> SessionPools:
        """The pools of this session."""
        if self._pools is None:
            from pytest_compilepool.sessionpools import SessionPools

            self._pools = SessionPools(self.config, self.settings, self.guard, lambda: self.started_with)
        return self._pools

    @property
    def leaks(self) -> LeakWatch:
        """The leak watch."""
        if self._leaks is None:
            from pytest_compilepool.leakwatch import LeakWatch

            self._leaks = LeakWatch(
                self.config,
                self.settings,
                self.pools.manager,
                lambda: self.guard.pids | (set() if self._suite is None else self._suite.forks.pids),
                lambda: self.guard.fds | (set() if self._suite is None else self._suite.forks.fds),
            )
        return self._leaks

    @property
    def suite(self) -> Suite:
        """The conformance suites among the tests."""
        if self._suite is None:
            from pytest_compilepool.suite import Suite, told_by_controller

            self._suite = Suite(self.settings, *told_by_controller(self.config))
        return self._suite

    @property
    def started_with(self) -> dict[str, str]:
        """The environment that this process was started with, before anything was imported into it."""
        from pytest_compilepool import resources

        return resources.start_environment() if os.path.exists("/proc/self/environ") else self._at_start

    # -- the hooks -----------------------------------------------------------------------------------

    def start(self) -> None:
        """The session begins: from now on pools are noticed, where there is a torch to make any."""
        if self.has_torch:
            # By its hook: its name is another one where -p has loaded it.
            if hasattr(self.config.hook, "pytest_timeout_set_timer"):
                from pytest_compilepool.timeouts import Timeouts

                self._timeouts = Timeouts(self.guard.timed_out)
                self.config.pluginmanager.register(self._timeouts, "compilepool-timeouts")
            from pytest_compilepool.pool.blocker import PoolRegister

            self._register = PoolRegister(self._torch_appeared)
            self._register.start()
            if hasattr(self.config, "workerinput"):
                self._become_worker(worker_names(self.config)[0])
                self.guard.start()  # also if its controller ends while it makes its first pool

    def worker_starts(self, workerinput: dict[str, Any]) -> None:
        """In the controller: xdist is about to start a worker, which is given this."""
        self.run_of_workers = str(workerinput.get("testrunuid", ""))
        tell_worker(workerinput, self.started_with)

    def _become_worker(self, name: str) -> None:
        """What each worker of xdist has for itself. name: xdist's, such as "gw0"."""
        from pytest_compilepool import xdist

        if self.settings.caches == "worker":
            os.environ.update(xdist.own_caches(name))
        if self.settings.gpus == "spread":
            self._cannot_spread = xdist.gpus_are_taken()
            os.environ.update({} if self._cannot_spread else xdist.own_gpu(name))

    def collected(self, items: list[pytest.Item]) -> None:
        """Validate every marker, every checker of others, and what decides about pools. Raises UsageError."""
        allowing = any(item.get_closest_marker("compilepool_leaks") for item in items)
        offered = self.config.hook.pytest_compilepool_leak_checkers.get_hookimpls()
        names = self.leaks.names if allowing or offered else frozenset()
        for item in items:
            if self._cannot_spread:
                item.stash[REFUSED] = CANNOT_SPREAD
                continue
            try:
                marks.validate(item, names)
                if marks.wants_pool(item):
                    self.pools.decide()
            except pytest.UsageError as error:
                # A worker of xdist has nobody to tell this before the tests run: its test says it.
                if not hasattr(self.config, "workerinput"):
                    raise
                item.stash[REFUSED] = str(error)
        if any(hasattr(getattr(item, "function", None), FEATURE) for item in items):
            self.suite.arrange(self.config, items)

    def item_collected(self, item: pytest.Item) -> None:
        """While others are still collected."""
        if self.has_torch:
            self.prestart.item_collected(item)

    def about_to_run(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Before a test, and before it waits for others. following: the next one of this process."""
        if self._prestart is not None:
            self._prestart.before(item, following)

    def collection_finished(self, session: pytest.Session) -> None:
        """What is left to be run, in its order."""
        items = session.items
        self.room.collected(items, lambda: started_with_of_run(self.config) or self.started_with)
        if self.has_torch:
            goes_on = not session.testsfailed or self.config.option.continue_on_collection_errors
            self.prestart.collected(items if goes_on else [])
        self.summary.errors += not_grouped(self.config, items)

    @property
    def prestart(self) -> Prestart:
        """Who starts sidecars ahead of the tests that will need them."""
        if self._prestart is None:
            from pytest_compilepool.prestart import Prestart

            self._prestart = Prestart(self)
        return self._prestart

    def before_test(self, item: pytest.Item) -> None:
        """Before anything of a test is set up, and again before each rerun of it."""
        if Genuine.getpid() != self._owner:
            return
        forget(item)
        self.guard.began(item)
        if inductor_loaded():
            self.guard.start()
        if self._register is not None:
            self._register.take()
            if self.settings.block and not marks.wants_pool(item):
                self._register.block(BLOCKED)
        if self.settings.leaks == "off" or (self.settings.leaks == "auto" and not self.has_torch):
            return
        engaged = self.settings.leaks in ("warn", "fail") or marks.uses_ours(item)
        if engaged or inductor_loaded():
            self._look_at(item, engaged)
        else:
            # No pool can appear before torch does: until then there is nothing to measure.
            self._waiting = item

    def refuse(self, item: pytest.Item) -> None:
        """Fail a test that was found wrong at collection, in a worker of xdist."""
        refused = item.stash.get(REFUSED, None)
        if refused is not None:
            pytest.fail(refused, pytrace=False)

    def fixture(self, fixturedef: Any) -> Generator[None, object, object]:
        """Around the setup of a fixture: what a wider scope makes is not one test's leak."""
        __tracebackhide__ = True  # an error of a fixture is no matter of this frame
        if fixturedef.scope == "function":
            return (yield)
        if self._leaks is not None and self._leaks.watching:
            with self._leaks.wider_scope(fixturedef):
                return (yield)
        try:
            return (yield)
        finally:
            # torch may have appeared in the middle of it, and a census with it.
            if self._leaks is not None and self._leaks.watching:
                self._leaks.begin_after(fixturedef)

    def fixture_ended(self, fixturedef: Any) -> None:
        """A fixture was torn down: what it had made is the account of the test that ends it again."""
        # pytest may say so more than once; only the first time there is still a result.
        wider = fixturedef.scope != "function" and fixturedef.cached_result is not None
        if self._leaks is not None and wider:
            self._leaks.scope_ended(fixturedef)

    def after_test(self, item: pytest.Item, failing: bool) -> None:
        """After everything of a test is torn down. failing: an error is on its way already.

        Raises pytest's failure where the options say that a leak, or a blocked pool, fails the test.
        """
        if Genuine.getpid() != self._owner:
            return  # a fork that a test has made: pools, processes and settings are its parent's
        self._waiting = None
        births, blocked = self._pools_since_the_last_test()
        self._note(item, len(births))
        leaks: list[Leak] = []
        text = ""
        if self._leaks is not None:
            leaks, text = self._leaks.end(item, bool(births))
        self.guard.ended(item, failing or bool(leaks and self.settings.leaks == "fail"))
        if failing:
            return
        not_alone = self.room.verdict(item)
        if not_alone and not item.stash.get(FAILED, False):
            pytest.fail(not_alone, pytrace=False)
        if blocked and not item.stash.get(FAILED, False):
            pytest.fail(blocked[0], pytrace=False)
        if leaks and self.settings.leaks == "fail":
            pytest.fail(text, pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C, or `pytest.exit`; the test that it hit is torn down only after this."""
        if self._pools is not None:
            self._pools.hurry()

    def finish(self, session: pytest.Session) -> None:
        """The session ends: every pool is closed, every trace of ours removed, and what is left is told."""
        if Genuine.getpid() != self._owner:
            return
        if self._pools is not None:
            self._pools.close(self.summary.total)
        if self._suite is not None:
            self._suite.close()
        if self._register is not None:
            self._register.stop()
        text = ""
        if self._leaks is not None:
            text = self._leaks.finish()
            self.summary.errors += self._leaks.errors
        if self.run_of_workers:
            from pytest_compilepool.xdist import told_of

            self.summary.went_down += told_of(self.run_of_workers)
        self.room.close()
        self.guard.close()
        told_to_controller(self.config, self.summary.errors)
        if not hasattr(self.config, "workerinput"):
            conformance.conclude(session, self.verdicts, self.cell_file)
        if text:
            self.summary.at_the_end.append(text)
            if self.settings.leaks == "fail" and session.exitstatus == 0:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _cell_file(self) -> CellFile | None:
        """Of the process that verdicts come to."""
        options = self.settings
        if options.cell is None or hasattr(self.config, "workerinput"):
            return None
        from pytest_compilepool.report.cellfile import CellFile
        from pytest_compilepool.report.cells import Asked

        asked = Asked(options.requirements or "", options.mode, options.group, options.shard)
        return CellFile(self.config, Path(options.cell), self.verdicts, asked)

    def header(self) -> str:
        """One line: torch by its metadata, how many processes and why, start method, leak mode."""
        torch = f"torch {installed_version()}" if self.has_torch else "torch is not installed"
        try:
            return f"compilepool: {torch}, {self.pools.described()}, leaks {self.settings.leaks}"
        except pytest.UsageError as error:
            # Who wants a pool is refused for it; who wants none should not be.
            return f"compilepool: {torch}, no pool can be made: {error}"

    def asked_for_pool(self, item: pytest.Item) -> None:
        """A fixture is about to hand a pool to this test, whether or not its signature says so."""
        if self._register is not None:
            self._register.unblock()
        if self._leaks is not None:
            self._leaks.engage()

    @contextlib.contextmanager
    def outer_caches_watched(self, outer: dict[str, str]) -> Iterator[None]:
        """The folders that were in effect before a test got fresh ones: nothing may be written there now."""
        if self._leaks is None:
            yield
            return
        checker: Any = self._leaks.checker("caches")
        checker.watch([Path(folder) for folder in outer.values()])
        try:
            yield
        finally:
            checker.unwatch()

    # -- inside --------------------------------------------------------------------------------------

    def _look_at(self, item: pytest.Item, engaged: bool, late: bool = False) -> None:
        self.guard.start()
        self.leaks.begin(item, engaged, late)
        if engaged:
            self.leaks.owned.tag = self.guard.tag()

    def _torch_appeared(self) -> None:
        """In the middle of a test that nobody looked at: the census before its first pool is taken now."""
        if Genuine.getpid() != self._owner:
            return
        self.guard.start()
        if self._timeouts is not None:
            self._timeouts.arm()
        item, self._waiting = self._waiting, None
        if item is not None:
            self._look_at(item, False, late=True)

    def _pools_since_the_last_test(self) -> tuple[list[Birth], list[str]]:
        if self._register is None:
            return [], []
        self._register.unblock()
        return self._register.take()

    def _note(self, item: pytest.Item, births: int) -> None:
        record = TestRecord()
        record.notes = item.stash.get(NOTES, [])
        started = 0 if self._pools is None else self._pools.note(record)
        record.made_by_torch = max(0, births - started)
        if not record.is_empty:
            item.user_properties.append((PROPERTY, record.as_text()))
