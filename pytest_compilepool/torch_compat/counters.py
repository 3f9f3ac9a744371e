# SPDX-License-Identifier: Apache-2.0
"""What torch counts of compiles, and whether it was set back meanwhile.

Nothing here imports torch: what is not loaded has counted nothing.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pytest_compilepool.torch_compat.looks import has_answered, jobs_sent
from pytest_compilepool.torch_compat.pools import has_owner, live_pools

_UTILS = "torch._dynamo.utils"


_ALWAYS = "stats"


class CountersWatch:
    """Whether torch's counters were cleared since this object was made."""

    def __init__(self) -> None:
        groups = _groups()
        if isinstance(groups, defaultdict):
            groups[_ALWAYS]  # there from the first compile on: without any group nothing could be seen to go
        self._groups = dict(groups)
        # The pattern matcher puts a copy in the place of its own group: only there another object says nothing.
        self._copied = {"inductor", os.environ.get("TORCHINDUCTOR_PATTERN_MATCH_BACKEND", "inductor")}

    def cleared(self) -> bool:
        """Whether a group that was there is no longer the same object, which only `counters.clear()` brings about."""
        now = _groups()
        return any(
            now.get(name) is not group for name, group in self._groups.items() if name not in self._copied
        )


def _groups() -> Mapping[str, Any]:
    counters: Mapping[str, Any] = getattr(sys.modules.get(_UTILS), "counters", {})
    return counters


class CompilationMetrics:
    """Sums of what torch measured of each compilation, which never fall.

    torch keeps the last 64 compilations only. What was seen once stays in the sums; what came and was dropped
    between two calls of `read()`, or was cleared, is lost, and `losses` says how often that may have happened.
    """

    def __init__(self) -> None:
        self._last: list[Any] | None = None
        self._sums: dict[str, int] = {}
        self.losses = 0

    def read(self) -> dict[str, int]:
        """The sums by the name of the field, `triton_compile_time_us` -> microseconds; empty without torch.

        `compilations` is how many there were, those of run time (autotuning) not counted.
        """
        utils = sys.modules.get(_UTILS)
        ask = getattr(utils, "get_compilation_metrics", list)
        entries: list[Any] = ask()
        # By identity: two compilations may well have measured the same. The list keeps the old ones alive.
        seen = {id(entry) for entry in self._last or ()}
        fresh = [entry for entry in entries if id(entry) not in seen]
        limit = getattr(utils, "DEFAULT_COMPILATION_METRICS_LIMIT", 64)
        gone = {id(entry) for entry in self._last or ()} - {id(entry) for entry in entries}
        # It drops the oldest where the newest has no place; that others are gone somebody else has done.
        if self._last is not None and (len(fresh) >= limit or (gone and len(entries) < limit)):
            self.losses += 1
        self._last = entries
        if not self._sums and utils is not None:
            self._sums = dict.fromkeys(["compilations", *_fields(utils)], 0)
        for entry in fresh:
            self._sums["compilations"] += not getattr(entry, "is_runtime", False)
            for name in self._sums.keys() - {"compilations"}:
                self._sums[name] += int(getattr(entry, name) or 0)
        return dict(self._sums)


def _fields(utils: Any) -> list[str]:
    known = getattr(getattr(utils, "CompilationMetrics", None), "__dataclass_fields__", {})
    return [name for name, field in known.items() if is_summed(name, str(field.type))]


def is_summed(field: str, kind: str) -> bool:
    """Whether a field of torch's compilation metrics is a number of which a sum says something. kind: its type."""
    if field in ("start_time_us", "end_time_us") or "str" in kind:
        return False
    return field.endswith(("_us", "_count")) or field.startswith("num_")


def inductor_metrics() -> dict[str, int]:
    """The whole numbers that Inductor's module `metrics` counts, by name; empty while it is not loaded."""
    values = dict(getattr(sys.modules.get("torch._inductor.metrics"), "__dict__", {}))
    return {name: value for name, value in values.items() if type(value) is int and name[0].islower()}


def unwatched_jobs() -> dict[int, int]:
    """Jobs sent to pools that torch made by itself, by the id of its pool; torch's ready probe is not counted.

    What becomes of these jobs nobody notes: only pools of the fixtures are watched.
    """
    sent: dict[int, int] = {}
    for ref in live_pools():
        if ref.kind in ("compile", "executor") and not has_owner(ref.object):
            probes = has_answered(ref.object) is not None
            sent[id(ref.object)] = (jobs_sent(ref.object) or 0) - probes
    return sent
