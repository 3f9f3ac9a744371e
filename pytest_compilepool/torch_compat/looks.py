# SPDX-License-Identifier: Apache-2.0
"""What torch's pool objects tell without being asked anything: for a look that must change nothing."""

from __future__ import annotations

import os
import sys
from typing import Any

from pytest_compilepool.torch_compat import pools


def has_answered(pool: Any) -> bool | None:
    """Whether torch's ready probe has come back; None where torch has not sent one to this pool."""
    probe = getattr(pool, "ready_future", None)  # torch 2.8 keeps it on the pool
    if probe is None and pools.memoised_pool() is pool:
        owner = getattr(sys.modules.get("torch._inductor.async_compile"), "AsyncCompile", None)
        probe = getattr(owner, "_ready_future", None)
    if probe is None:
        return None
    return bool(probe.done() and not probe.cancelled() and probe.exception() is None)


def pending(pool: Any) -> int:
    """How many jobs have no result yet, in the executor inside an autotune pool too."""
    inner = getattr(pool, "_pool", None)
    return len(pools.pending_jobs(pool)) + (0 if inner is None else len(pools.pending_jobs(inner)))


def jobs_sent(pool: Any) -> int | None:
    """How many jobs were sent to a pool since it was made, ready probes included; None where torch keeps no count."""
    counter = getattr(pool, "job_id_count", None)
    if counter is None:
        number = getattr(pool, "_queue_count", None)  # of an executor
        return number if isinstance(number, int) else None
    # An itertools.count shows its next number only in its text: next() would use that up.
    digits = repr(counter).partition("(")[2].rstrip(")")
    return int(digits) if digits.isdigit() else None


def log_of(pool: Any) -> str:
    """The file that sidecar and workers of a pool write to; "" where it is thrown away, or is the terminal."""
    name = getattr(getattr(pool, "log_file", None), "name", "")
    return name if isinstance(name, str) and name != os.devnull else ""


def pipe_ends(pool: Any) -> tuple[set[int], set[int]]:
    """Descriptors of this process through which it talks to a sidecar: those to read from, and the one to write to."""
    ends = {}
    for name in ("read_pipe", "write_pipe"):
        file = getattr(pool, name, None)
        ends[name] = {file.fileno()} if file is not None and not file.closed else set()
    # Up to torch 2.13 this process keeps the ends that were meant for the sidecar.
    return ends["read_pipe"] | set(pools.sidecar_ends(pool)), ends["write_pipe"]
