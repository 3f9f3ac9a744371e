# SPDX-License-Identifier: Apache-2.0
"""The guard of one session, as its hooks use it: made when there may be something to clean up after, told of each test."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_compilepool.keys import OUTCOME
from pytest_compilepool.xdist import worker_names

# Whoever needs no guard pays for none.
if TYPE_CHECKING:
    from pytest_compilepool.guard.warden import Warden
    from pytest_compilepool.sessionrecord import SessionRecord


class SessionGuard:
    """At most one `Warden`. tell: is given what there is not, and why, once."""

    def __init__(self, config: pytest.Config, tell: Callable[[str], None]) -> None:
        self._config = config
        self._tell = tell
        self._warden: Warden | None = None
        self._running: pytest.Item | None = None
        self._tagged = False
        self._tag_before: str | None = None

    def start(self) -> Warden:
        """From here on something may be left: whatever ends this process, another one cleans up after it."""
        if self._warden is None:
            from pytest_compilepool.guard.warden import Warden

            self._warden = Warden(self._config.rootpath, *worker_names(self._config))
            if self._warden.trouble:
                self._tell(self._warden.trouble)
            if self._running is not None:
                self.began(self._running)
        return self._warden

    def close(self) -> None:
        """The session has ended as it should."""
        self._untag()
        if self._warden is not None:
            self._warden.close()

    # -- what it owns, for the leak checkers ---------------------------------------------------------

    @property
    def pids(self) -> set[int]:
        """The guard's."""
        return set() if self._warden is None else self._warden.pids

    @property
    def fds(self) -> set[int]:
        """Descriptors of this process."""
        return set() if self._warden is None else self._warden.fds

    # -- the tests -----------------------------------------------------------------------------------

    def began(self, item: pytest.Item) -> None:
        """A test begins, or an attempt at it."""
        self._running = item
        if self._record is not None:
            self._record.began(item.nodeid, attempt_of(item))

    def ended(self, item: pytest.Item, failed: bool) -> None:
        """It has ended. failed: in its teardown, of which no report has been made yet."""
        self._running = None
        if self._record is not None:
            outcome = "failed" if failed else item.stash.get(OUTCOME, "passed")
            self._record.ended(item.nodeid, attempt_of(item), outcome)

    def timed_out(self, text: str) -> None:
        """Its time is up. text: what its pools were doing."""
        if self._record is not None:
            self._record.timed_out(text)

    @property
    def _record(self) -> SessionRecord | None:
        return None if self._warden is None else self._warden.record

    # -- the tag -------------------------------------------------------------------------------------

    def tag(self) -> str:
        """Have all that is started from here on carry a variable that tells it from strangers. Returns its value."""
        from pytest_compilepool.proctree import TAG

        value = self.start().tag
        if not self._tagged:
            # A session within a session (pytester in this process) finds the outer one's, and gives it back.
            self._tagged, self._tag_before = True, os.environ.get(TAG)
            os.environ[TAG] = value
        return value

    def _untag(self) -> None:
        if not self._tagged:
            return
        from pytest_compilepool.proctree import TAG

        if self._tag_before is None:
            os.environ.pop(TAG, None)
        else:
            os.environ[TAG] = self._tag_before


def attempt_of(item: pytest.Item) -> int:
    """Which run of this test it is: 1, or more where pytest-rerunfailures runs it again."""
    return int(getattr(item, "execution_count", 1))
