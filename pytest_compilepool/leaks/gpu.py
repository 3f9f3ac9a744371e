# SPDX-License-Identifier: Apache-2.0
"""GPU memory that tensors of this process hold."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks.base import Change, LeakChecker
from pytest_compilepool.records import Leak, Snapshot


class GpuChecker(LeakChecker):
    """Bytes allocated, by device index, once CUDA is initialised: before that it is not touched.

    Only growth is a leak. The memory of sidecar and workers is not in it, nor what the allocator keeps
    unused.
    """

    name: ClassVar[str] = "gpu"
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def measure(self) -> Snapshot | None:
        memory = torch_compat.gpu_memory()
        return None if memory is None else dict(memory.items())

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        for device, new in after.items():
            if device in before and new > before[device]:
                yield device, before[device], new

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        after = f"{_size(new)} allocated, {_size(new - old)} more"
        return Leak(self.name, f"cuda:{key}", f"{_size(old)} allocated", after, handle=key)

    def restore(self, leaks: Sequence[Leak]) -> None:
        gc.collect()
        torch_compat.empty_gpu_cache()

    def note(self, leak: Leak) -> str:
        return "tensors that something still refers to stay; free them, or end the process"


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
