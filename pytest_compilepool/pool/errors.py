# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a pool, each with a message that says what, where and what to do."""

from __future__ import annotations

import operator
import signal


class PoolError(RuntimeError):
    """Anything that this package reports about a compile pool."""


class PoolUnsupported(PoolError):
    """This torch, or this start method, cannot do what was asked; the message names both."""


class PoolNotReady(PoolError):
    """The pool did not become ready within the bound; the message shows what was there then."""


class PoolTimeout(PoolError):
    """Something that was waited for did not happen within the bound."""


class PoolClosed(PoolError):
    """The pool was asked for something after it was shut down, or before it was warmed."""


class SidecarDied(PoolError):
    """The sidecar ended though nobody shut the pool down: no kernel can be compiled in it any more."""


def describe_exit(code: int | None) -> str:
    """An exit status as Popen gives it in words: `was killed by SIGKILL`, `exited with status 3`."""
    if code is None:
        return "ended (its exit status is not known)"
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


HIDDEN = operator.methodcaller("errisinstance", PoolError)
"""What a module of this room sets `__tracebackhide__` to: of these errors pytest shows the line of the test."""
