# SPDX-License-Identifier: Apache-2.0
"""Exclusive tests of one session: who waits for whom, and what is said of it. The lock itself is in `exclusive.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_compilepool import genuine  # noqa: F401  the lock is loaded later, when a test may have patched the clock
from pytest_compilepool.keys import REFUSED, ROOM
from pytest_compilepool.marks import EXCLUSIVE, will_be_skipped

# Only whoever has such a test pays for the lock.
if TYPE_CHECKING:
    from pytest_compilepool.exclusive import Exclusive

TOO_LATE = (
    "this test was marked compilepool_exclusive while it ran, so others may have run beside it: the mark has to be there "
    "when the tests have been collected"
)


class Room:
    """timeout: seconds that a test waits, see `Exclusive`."""

    def __init__(self, config: pytest.Config, timeout: float) -> None:
        self._config = config
        self._timeout = timeout
        self._lock: Exclusive | None = None

    def collected(self, items: Sequence[pytest.Item], environ: Callable[[], Mapping[str, str]]) -> None:
        """What is going to be run; every worker of xdist is told all of it. environ: gives what the folder is taken of."""
        self.close()
        self._lock = None
        if any(item.get_closest_marker(EXCLUSIVE) for item in items):
            from pytest_compilepool.exclusive import Exclusive

            self._lock = Exclusive(self._timeout, environ(), self._tell)

    @contextlib.contextmanager
    def around(self, item: pytest.Item) -> Iterator[None]:
        """Around all of a test, its reruns too: it waits here until nobody runs who wants to be alone, or nobody at all."""
        if self._lock is None or REFUSED in item.stash or will_be_skipped(item):
            yield
            return
        from pytest_compilepool.exclusive import CannotEnter, NoLock

        alone = item.get_closest_marker(EXCLUSIVE) is not None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock.held(item.nodeid, alone))
            except CannotEnter as error:
                from pytest_compilepool.words import sendable

                if alone or not isinstance(error, NoLock):  # the others need no promise
                    item.stash[REFUSED] = sendable(str(error))
            else:
                item.stash[ROOM] = alone
            try:
                yield
            finally:
                # Of this time: whoever runs it again asks again.
                if REFUSED in item.stash:
                    del item.stash[REFUSED]
                if ROOM in item.stash:
                    del item.stash[ROOM]

    def verdict(self, item: pytest.Item) -> str:
        """At the end of its teardown: why the test was not alone, though it should have been, or ""."""
        if REFUSED in item.stash:
            return ""
        marked = item.get_closest_marker(EXCLUSIVE) is not None
        if marked and not item.stash.get(ROOM, False) and not will_be_skipped(item):
            return TOO_LATE
        return "" if self._lock is None else self._lock.lost

    def close(self) -> None:
        """The session has ended."""
        if self._lock is not None:
            self._lock.close()

    def _tell(self, text: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:  # a worker of xdist has none
            with contextlib.suppress(OSError):
                reporter.ensure_newline()
                reporter.write_line(f"compilepool: {text}")
