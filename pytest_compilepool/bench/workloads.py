# SPDX-License-Identifier: Apache-2.0
"""What there is to be compiled by `compilepool bench compile`."""

from __future__ import annotations

HERE = "here"
"""The target that means the GPU of this machine."""

WORKLOADS = {
    "kernels": "raw Triton kernels: 5 kernels, each with 1, 2, 4 and 8 warps, as jobs of the pool",
    "model": "a torch.compile model of twelve blocks: 17 Triton kernels in one graph",
    "programs": "24 small torch.compile programs, one after the other: one to four Triton kernels in each graph",
}
"""Their names, and what each is. The functions are in `pytest_compilepool.workloads`."""

WARPS = (1, 2, 4, 8)
"""With how many warps each raw kernel is compiled: each time another binary."""

MOST_KERNELS = 20


def plan(count: int, names: tuple[str, ...]) -> list[tuple[str, int]]:
    """The first so many raw kernels: (name, number of warps). names: of those that there are."""
    return [(name, warps) for warps in WARPS for name in names][:count]


def as_triton(target: str) -> tuple[str, int | str, int]:
    """`cuda:90:32` as `compile_kernel` takes it: (backend, architecture, warp size)."""
    backend, architecture, warp_size = target.split(":")
    return backend, int(architecture) if architecture.isdecimal() else architecture, int(warp_size)
