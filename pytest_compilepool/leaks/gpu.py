# SPDX-License-Identifier: Apache-2.0
"""GPU memory that tensors of this process hold."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks.base import Change, LeakChecker
from pytest_compilepool.records import Leak, Snapshot

KIB = 1024

# What the first matrix product takes from the allocator for cuBLAS, and keeps for the life of the process, in
# bytes: on Hopper and later, and on older devices. CUBLAS_WORKSPACE_CONFIG can ask for another size.
_CUBLAS_WORKSPACES = frozenset({4096 * 8 * KIB, (4096 * 2 + 16 * 8) * KIB})


class GpuChecker(LeakChecker):
    """Bytes allocated, by device index, once CUDA is initialised: before that it is not touched.

    Only growth is a leak. The memory of sidecar and workers is not in it, nor what the allocator keeps
    unused. The first growth of a device by exactly the size of cuBLAS's workspace is taken for that: the
    one verdict that depends on what this checker has seen before.
    """

    name: ClassVar[str] = "gpu"
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __init__(self) -> None:
        self._below_workspace: dict[Hashable, int] = {}  # what a device held before its workspace came

    def measure(self) -> Snapshot | None:
        memory = torch_compat.gpu_memory()
        return None if memory is None else dict(memory.items())

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        for device, new in after.items():
            old = before.get(device)
            if old is not None and new > old and not self._is_workspace(device, old, new):
                yield device, old, new

    def _is_workspace(self, device: Hashable, old: int, new: int) -> bool:
        if new - old not in _CUBLAS_WORKSPACES | {_configured_workspace()}:
            return False
        # One comparison looks several times, always from the same start.
        return self._below_workspace.setdefault(device, old) == old

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        after = f"{_size(new)} allocated, {_size(new - old)} more"
        return Leak(self.name, f"cuda:{key}", f"{_size(old)} allocated", after, handle=key)

    def restore(self, leaks: Sequence[Leak]) -> None:
        gc.collect()
        torch_compat.empty_gpu_cache()

    def note(self, leak: Leak) -> str:
        return "tensors that something still refers to stay; free them, or end the process"


def _configured_workspace() -> int:
    """Bytes that CUBLAS_WORKSPACE_CONFIG asks for (`:KiB:count`, several times), or 0."""
    parts = re.findall(r":(\d+):(\d+)", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    return sum(int(size) * int(count) for size, count in parts) * KIB


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
