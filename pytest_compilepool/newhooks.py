# SPDX-License-Identifier: Apache-2.0
"""The hooks that the plugin offers to conftest files and other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_compilepool.counters.source import CounterSource
    from pytest_compilepool.leaks.base import LeakChecker
    from pytest_compilepool.records import Leak


@pytest.hookspec
def pytest_compilepool_leak_checkers(config: pytest.Config) -> list[LeakChecker]:
    """Leak checkers of your own, measured around every test that is looked at.

    config: pytest's. Returns a list of `pytest_compilepool.leaks.base.LeakChecker`; a name that is
    taken ends in a UsageError.
    """
    return []


@pytest.hookspec(firstresult=True)
def pytest_compilepool_allowed_leak(item: pytest.Item, leak: Leak) -> bool | None:
    """Whether this leak of this test is fine. Return True to allow it, None to leave it to others."""
    return None


@pytest.hookspec
def pytest_compilepool_counters(config: pytest.Config) -> list[CounterSource]:
    """Counters of your own, read by the fixture `compile_counters` with torch's and the pool's.

    config: pytest's. Returns a list of `pytest_compilepool.counters.CounterSource`; a name that is taken
    fails the tests that use the fixture.
    """
    return []
