# SPDX-License-Identifier: Apache-2.0
"""What is kept in pytest's stashes: under which keys, and what of it an earlier run of a test has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_compilepool.runrecord import LEAKS_PROPERTY, PROPERTY

if TYPE_CHECKING:
    from pytest_compilepool.counters.facade import SessionCounters
    from pytest_compilepool.pool.facade import CompilePool
    from pytest_compilepool.session import Session

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""On the config: the session object."""

COUNTERS: pytest.StashKey[SessionCounters] = pytest.StashKey()
"""On the config: what the tests that look at counters share."""

FAILED: pytest.StashKey[bool] = pytest.StashKey()
"""On an item: a phase of it has failed."""

OUTCOME: pytest.StashKey[str] = pytest.StashKey()
"""On an item: "passed", "failed" or "skipped", as far as it has got."""

REFUSED: pytest.StashKey[str] = pytest.StashKey()
"""On an item of an xdist worker: why it must not run, found at collection."""

ROOM: pytest.StashKey[bool] = pytest.StashKey()
"""On an item: whether it has the machine to itself; not there where it took no part in that."""

LEASED: pytest.StashKey[list[CompilePool]] = pytest.StashKey()
"""On an item: the pools that fixtures have handed to it."""

SECTIONS: pytest.StashKey[list[tuple[str, Callable[[], str]]]] = pytest.StashKey()
"""On an item: what its report shows if it fails, a title and what gives the text then."""

NOTES: pytest.StashKey[list[str]] = pytest.StashKey()
"""On an item: lines for the summary at the end of the session."""

LEAKS: pytest.StashKey[list[dict[str, str]]] = pytest.StashKey()
"""On an item: what it left behind, as plain values."""

UNUSED: pytest.StashKey[list[str]] = pytest.StashKey()
"""On an item: allowances that covered no leak."""


def forget(item: pytest.Item) -> None:
    """Take off what an earlier run of the same test has left on it: a rerun is judged for itself."""
    keys: tuple[pytest.StashKey[Any], ...] = (FAILED, OUTCOME, LEASED, SECTIONS, NOTES, LEAKS, UNUSED)
    for key in keys:
        if key in item.stash:
            del item.stash[key]
    ours = (PROPERTY, LEAKS_PROPERTY)
    item.user_properties[:] = [pair for pair in item.user_properties if pair[0] not in ours]


def leased_by(item: pytest.Item) -> list[CompilePool]:
    """The pools that fixtures have handed to a test."""
    return item.stash.setdefault(LEASED, [])
