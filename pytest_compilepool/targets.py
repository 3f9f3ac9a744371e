# SPDX-License-Identifier: Apache-2.0
"""GPUs that kernels can be compiled for without one being there: their names and what Inductor asks of them.

The numbers of cores, registers and bytes are those of one product of each architecture, from its vendor's
data sheet or as its driver reports them; Inductor's heuristics read them, the compilers do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One GPU. name: as a marker takes it, `cuda:90`; backend, arch, warp_size: as Triton takes them.

    model: a product with this architecture; capability: (major, minor); processors: multiprocessors or
    compute units; registers: 32-bit ones of a multiprocessor; threads: that a multiprocessor holds;
    shared, shared_optin: bytes of shared memory that a block has, and may have at most.
    """

    name: str
    backend: str
    arch: int | str
    warp_size: int
    model: str
    capability: tuple[int, int]
    processors: int
    registers: int
    threads: int
    shared: int
    shared_optin: int
    memory: int


_GIB = 2**30


def _cuda(
    arch: int,
    model: str,
    processors: int,
    threads: int,
    shared_optin: int,
    memory: int,
    registers: int = 65536,
) -> Target:
    capability = divmod(arch, 10)
    return Target(
        f"cuda:{arch}",
        "cuda",
        arch,
        32,
        model,
        capability,
        processors,
        registers,
        threads,
        49152,
        shared_optin,
        memory * _GIB,
    )


TARGETS = {
    target.name: target
    for target in (
        _cuda(75, "Tesla T4", 40, 1024, 65536, 16),
        _cuda(80, "A100", 108, 2048, 166912, 80),
        _cuda(86, "A10", 72, 1536, 101376, 24),
        _cuda(89, "L4", 58, 1536, 101376, 24),
        _cuda(90, "H200", 132, 2048, 232448, 141),
        _cuda(100, "B200", 148, 2048, 232448, 180),
        _cuda(120, "RTX PRO 6000 Blackwell", 188, 1536, 101376, 96),
        Target(
            "hip:gfx942",
            "hip",
            "gfx942",
            64,
            "MI300X",
            (9, 4),
            304,
            65536,
            2048,
            65536,
            65536,
            192 * _GIB,
        ),
    )
}


# LLVM aborts the process that compiles for another one (seen with Triton 3.7.1 and sm_73, sm_99, sm_130).
_CUDA = (70, 72, 75, 80, 86, 87, 88, 89, 90, 100, 101, 103, 110, 120, 121)


class BadTarget(ValueError):
    """A target that there is not. Its text is a sentence with the value, where it came from, what is allowed."""


def parse_target(value: object, origin: str) -> Target:
    """A target by its name, such as `cuda:90`. origin: where the name came from. Raises BadTarget."""
    if isinstance(value, str) and value in TARGETS:
        return TARGETS[value]
    raise BadTarget(f"{origin}: {value!r} is not allowed; allowed: {', '.join(TARGETS)}")


def triton_target(value: object, origin: str) -> str:
    """A target as Triton takes it, `backend:architecture:warp size`, from that or from a name such as `cuda:90`.

    origin: where it came from. Raises BadTarget.
    """
    if isinstance(value, str):
        if value in TARGETS:
            target = TARGETS[value]
            return f"{target.backend}:{target.arch}:{target.warp_size}"
        known = "|".join(map(str, _CUDA))
        if re.fullmatch(rf"cuda:({known}):32|hip:gfx[0-9]{{2,4}}[a-f]?:(32|64)", value):
            return value
    raise BadTarget(
        f"{origin}: {value!r} is not allowed; allowed: {', '.join(TARGETS)}, or backend:architecture:warp size, such as "
        "cuda:90:32"
    )
