# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a reference pool."""

from __future__ import annotations


class PoolError(RuntimeError):
    """Below this are all of them."""


class PoolClosed(PoolError):
    """The pool was shut down."""


class SidecarDied(PoolError):
    """The sidecar ended by itself; the text has its pid, how it ended and what it said last."""


class WorkerDied(PoolError):
    """The worker that did this job ended; the text has its pid and how it ended."""


class RemoteError(PoolError):
    """What a job raised, in words, where the exception itself could not travel."""
