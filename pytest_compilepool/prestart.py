# SPDX-License-Identifier: Apache-2.0
"""The sidecar of the first test that wants a pool, started as soon as it is known that there is such a test.

It imports torch while the rest is collected and while tests run that need no pool. It is in nobody's hands until
then: torch does not know it, and no census counts it. Whatever goes wrong here, the test itself says.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_compilepool import marks

if TYPE_CHECKING:
    from pytest_compilepool.pool.manager import Request
    from pytest_compilepool.session import Session

HANDED_OUT = frozenset({"compile_pool", "cold_compile_pool", "quiesced_compile_pool"})
"""Fixtures whose pool is known before the test runs; what a factory will be asked for is not."""

_DECIDING = ("compile_pool_processes", "compile_pool_start_method", "compile_pool_ready_timeout", *HANDED_OUT)
_LEAST_CPUS = 2
_OURS = "pytest_compilepool.fixtures.pools"

# Options of pytest that take tests out after they were collected.
_SELECTING = ("keyword", "markexpr", "deselect", "lf", "stepwise")


class Prestart:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._done = False
        option = session.config.option
        self._is_worker = hasattr(session.config, "workerinput")
        self._off = session.settings.prestart == "off" or any(
            getattr(option, name, False) for name in ("collectonly", "setupplan")
        )
        self._coming: dict[int, pytest.Item] = {}  # by id: in order, and quick to take one out
        self._selecting = any(getattr(option, name, None) for name in _SELECTING)

    def item_collected(self, item: pytest.Item) -> None:
        """While others are collected, where this one is sure to stay."""
        # A worker of xdist collects all tests and runs some.
        if not (self._done or self._off or self._selecting or self._is_worker) and wants(item):
            self._start(item)

    def collected(self, items: Iterable[pytest.Item]) -> None:
        """These will be run."""
        if self._is_worker:
            return
        self._coming.update((id(item), item) for item in items if wants(item))
        first = self._next()
        if first is None:
            if self._done:
                self._session.pools.end_ahead()
        elif not (self._done or self._off):
            self._start(first)
        elif self._done and not self._still_fits(first):
            # What came to be collected since has changed sys.path, or the environment.
            self._session.pools.end_ahead()
            self._start(first)

    def before(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """A test is about to run. following: the one after it, which a worker of xdist knows, too."""
        if self._is_worker:
            self._coming.clear()
            if following is not None and wants(following):
                self._coming[id(following)] = following
                if not (self._done or self._off):
                    self._start(following)
        else:
            self._coming.pop(id(item), None)

    def _still_fits(self, item: pytest.Item) -> bool:
        from pytest_compilepool.torch_compat import TorchUnavailable

        with contextlib.suppress(TorchUnavailable, pytest.UsageError):
            request = self._request(item)
            return request is not None and self._session.pools.manager.fits_ahead(request)
        return False

    def _next(self) -> pytest.Item | None:
        return next(iter(self._coming.values()), None)

    def pool_handed_out(self) -> None:
        """A test has got one, shared or its own."""
        self._done = True
        self._spare()

    def pool_taken_back(self) -> None:
        """A test is over: its pool is parked, or has ended."""
        self._spare()

    def _spare(self) -> None:
        """Start the next one where the next test that wants a pool will need a sidecar that there is not yet."""
        following, manager = self._next(), self._session.pools.manager
        if self._session.settings.spare == "off" or following is None or manager.ahead:
            return
        if manager.shares and not needs_its_own(following):
            return
        from pytest_compilepool.resources import usable_cpus  # a dear one to load, for whoever starts no pool

        if usable_cpus().count < _LEAST_CPUS:
            return  # what starts in the background would slow down what runs
        self._try(following, in_a_test=True)

    def _start(self, item: pytest.Item) -> None:
        # Who has not imported torch by now may have a reason, and would wait for it before the first test.
        if "torch" not in sys.modules:
            return
        self._done = True
        self._try(item, in_a_test=False)

    def _try(self, item: pytest.Item, in_a_test: bool) -> None:
        from pytest_compilepool.pool.errors import PoolError
        from pytest_compilepool.torch_compat import TorchUnavailable

        with contextlib.suppress(PoolError, TorchUnavailable, pytest.UsageError):
            request = self._request(item)
            if request is not None:
                self._session.pools.start_ahead(request, in_a_test)

    def _request(self, item: pytest.Item) -> Request | None:
        """What its fixture will ask for, None where that cannot be told yet. Raises UsageError, TorchUnavailable."""
        from pytest_compilepool.torch_compat import capabilities

        if any(overridden(item, name) for name in _DECIDING):
            return None
        mark = marks.pool_mark(item)
        decision = self._session.pools.decide(
            at_least=2, marker=mark.processes, start_method=mark.start_method, capabilities=capabilities()
        )
        if (
            decision.processes < 2
            or decision.start_method != "subprocess"
            or decision.decided_by.name == "memory"
        ):
            return None
        return self._session.pools.request(decision, mark.ready_timeout)


def wants(item: pytest.Item) -> bool:
    """Whether this test will be handed a pool, as far as is known before it runs."""
    names = set(getattr(item, "fixturenames", ()))
    return bool(names & HANDED_OUT) and item.get_closest_marker("skip") is None


def needs_its_own(item: pytest.Item) -> bool:
    """Whether this test is handed a sidecar that nobody has used before."""
    return (
        "cold_compile_pool" in getattr(item, "fixturenames", ())
        or marks.pool_mark(item).isolation == "sidecar"
    )


def overridden(item: pytest.Item, name: str) -> bool:
    """Whether this test gets another fixture of that name than this package's; also where that cannot be told."""
    # By its name in the plugin manager: the class is private.
    known: Any = item.config.pluginmanager.get_plugin("funcmanage")
    try:
        found = known.getfixturedefs(name, item)
        return bool(found[-1].func.__module__ != _OURS)
    except (AttributeError, TypeError, IndexError):
        return True
