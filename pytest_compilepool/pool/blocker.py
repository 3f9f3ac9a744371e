# SPDX-License-Identifier: Apache-2.0
"""Who starts pools: notes every one that this process makes, and forbids it where nobody asked for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_compilepool.torch_compat.creation import CreationWatch, Creator


class PoolBlocked(BaseException):
    """A pool was started where none is allowed. A BaseException, so that torch's fallbacks do not swallow it."""


# Not a dataclass: every session that has torch loads this file, and making one takes longer than the rest of it.
class Birth:
    """One pool that was made: its kind as torch_compat names it, and by whom."""

    def __init__(self, kind: str, creator: Creator) -> None:
        self.kind = kind
        self.creator = creator


class PoolRegister:
    """The listener of a CreationWatch: a list of births, and the door that can be shut.

    torch_appeared: called when the modules that make pools have just been imported.
    """

    def __init__(self, torch_appeared: Callable[[], None]) -> None:
        self._torch_appeared = torch_appeared
        self.births: list[Birth] = []
        self.blocked: list[str] = []
        self._message: str | None = None
        self._watch = CreationWatch(self)

    def start(self) -> None:
        """Begin to watch; may be called twice."""
        self._watch.stop()
        self._watch.start()

    def stop(self) -> None:
        """Stop watching; torch's classes are as they were."""
        self._watch.stop()

    def block(self, message: str) -> None:
        """From now on a pool that is started raises PoolBlocked with this message."""
        self._message = message

    def unblock(self) -> None:
        """Let pools be started again."""
        self._message = None

    def take(self) -> tuple[list[Birth], list[str]]:
        """What happened since the last call: births, and the messages of starts that were forbidden."""
        births, blocked = self.births, self.blocked
        self.births, self.blocked = [], []
        return births, blocked

    def before(self, kind: str, creator: Creator) -> None:
        """A pool is about to be made."""
        __tracebackhide__ = True
        if self._message is not None:
            text = f"{self._message} (kind: {kind}; started at {creator.where})"
            self.blocked.append(text)
            raise PoolBlocked(text)

    def imported(self, module: str) -> None:
        """torch's pools have just been imported: from now on one can be made."""
        self._torch_appeared()

    def after(self, kind: str, pool: Any, creator: Creator) -> None:
        """A pool has been made."""
        self.births.append(Birth(kind, creator))
        from pytest_compilepool.pool import forks  # loaded only where there is a pool

        forks.protect(pool)
