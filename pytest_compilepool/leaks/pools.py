# SPDX-License-Identifier: Apache-2.0
"""torch's pools: those in its registry, the memoised one, and those that no registry knows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks.base import LeakChecker, Owned
from pytest_compilepool.records import Leak, Snapshot

CLOSE_TIMEOUT = 5.0  # seconds that a pool gets to go in peace

# Kinds that torch makes once and keeps for the life of the interpreter, as it says itself: threads that wait
# for the next C++ kernel, made by the first.
_LIFELONG = frozenset({"cpp_threads"})

_WORDS = {
    "compile": "compile pool (sidecar and workers)",
    "executor": "compile pool (workers of this process)",
    "fx_compile": "pool of the FX compile in a subprocess",
    "autotune": "autotune pool",
    "precompile_threads": "precompile threads",
    "triton_threads": "compile threads",
}


class PoolChecker(LeakChecker):
    """Pools that torch holds. key: (kind, id of the object); value: what can be said of it.

    The snapshot holds no pool, so it keeps none alive. Passed over: `Owned.pools`, and the C++ compile
    threads, which torch makes once for the life of the interpreter.
    """

    name: ClassVar[str] = "pools"
    cheap: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __init__(self, owned: Owned) -> None:
        self._owned = owned

    def measure(self) -> Snapshot:
        passed = self._owned.pools()
        return {
            (ref.kind, id(ref.object)): (ref.pid, ref.processes, ref.made_by, ref.memoised)
            for ref in torch_compat.live_pools()
            if id(ref.object) not in passed and ref.kind not in _LIFELONG
        }

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        assert isinstance(key, tuple)
        kind = str(key[0])
        pid, processes, made_by, memoised = new
        unit = "threads" if kind.endswith("threads") else "processes"
        parts = [_WORDS.get(kind, kind)]
        if pid is not None:
            parts.append(f"sidecar pid {pid}" if kind == "compile" else f"pid {pid}")
        if processes is not None:
            parts.append(f"{processes} {unit}")
        if memoised:
            parts.append("torch will use it for the next compile")
        return Leak(self.name, kind, "not there", ", ".join(parts), made_by, handle=key)

    def restore(self, leaks: Sequence[Leak]) -> None:
        from pytest_compilepool.pool.closing import close_pool

        wanted = {leak.handle for leak in leaks}
        for ref in torch_compat.live_pools():
            if (ref.kind, id(ref.object)) in wanted:
                close_pool(ref, timeout=CLOSE_TIMEOUT)
