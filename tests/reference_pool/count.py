# SPDX-License-Identifier: Apache-2.0
"""How many workers there are when nobody says."""

from __future__ import annotations

import os

from reference_pool.errors import PoolError

VARIABLE = "REFERENCE_POOL_PROCESSES"
MOST = 32


def default_processes() -> int:
    """As many as the environment says; else one for each CPU that this process may run on. Raises PoolError."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return min(MOST, len(os.sched_getaffinity(0)))
    if not text.isdecimal() or int(text) < 1:
        raise PoolError(f"{VARIABLE}={text!r}: it must be a number of processes, 1 or more")
    return int(text)
