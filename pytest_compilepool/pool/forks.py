# SPDX-License-Identifier: Apache-2.0
"""A fork inherits the pipes of a pool: it must not write into them, nor keep them open when its parent has gone.

What it would write mixes with what the parent writes, and a sidecar learns that its parent has ended by the end of the pipe.
torch forgets its pools in a fork, but whoever holds one still could.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

from pytest_compilepool.torch_compat import looks, pools

_protected: weakref.WeakSet[Any] = weakref.WeakSet()
_registered = False


def protect(pool: Any) -> None:
    """From now on no fork of this process has the pipes of this pool. pool: torch's object; may be given twice."""
    global _registered
    if not pools.is_sidecar_pool(pool):
        return
    _protected.add(pool)
    if not _registered and hasattr(os, "register_at_fork"):
        # It cannot be taken back, so it is done once, and has nothing to do where no pool lives.
        os.register_at_fork(after_in_child=_let_go)
        _registered = True


def _let_go() -> None:
    """In a child, first of all: what it inherited is put out of its reach. Writing there raises, reading ends."""
    for pool in list(_protected):
        reading, writing = looks.pipe_ends(pool)
        with contextlib.suppress(OSError):
            nothing = _nothing(reading)
            for number in (reading | writing) - {nothing}:
                os.dup2(nothing, number, inheritable=False)
            if nothing not in reading:
                os.close(nothing)
    _protected.clear()


def _nothing(reading: set[int]) -> int:
    """A descriptor for reading from which nothing comes. Where none is free, one of the pool's own makes way for it."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        given_up = min(reading)
        os.close(given_up)
        made = os.open(os.devnull, os.O_RDONLY)
        if made != given_up:
            os.dup2(made, given_up, inheritable=False)
            os.close(made)
        return given_up
