# SPDX-License-Identifier: Apache-2.0
"""Which configuration of a kernel was chosen, where several were tried: by measurements, so another run may differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_compilepool.parity.findings import Finding, Side

# How it was found and what it took, not what it is.
_ASIDE = frozenset({"time_taken_ms", "found_by_coordesc", "triton_cache_hash", "configs_hash"})

_KERNEL = re.compile(r"^def (\w+)\(", re.MULTILINE)


def compare_choices(one: Side, other: Side) -> Iterator[Finding]:
    """Kernels for which the two sides chose otherwise; that is no wrong result."""
    mine, theirs = _choices(one.folders.inductor), _choices(other.folders.inductor)
    for place in sorted({*mine} & {*theirs}):
        if mine[place][1] != theirs[place][1]:
            yield Finding(
                "config",
                mine[place][0],
                f"config differs: {mine[place][1]} was fastest with {one.label}, {theirs[place][1]} with {other.label}",
                fails=False,
            )


def _choices(inductor: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Inductor's own notes (`*.best_config`): name of the kernel and its configuration, by place."""
    found = {}
    for file in sorted(inductor.glob("*/*.best_config")):
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        config = {name: value for name, value in told.items() if name not in _ASIDE}
        found[file.relative_to(inductor).as_posix()] = _kernel_of(file), config
    return found


def _kernel_of(file: Path) -> str:
    """The kernel that a note is about: its text is in the same folder, as a rule the only one there.

    The note's own name is a hash in which torch's sources have a part (2.11 to 2.15), so it tells nothing.
    """
    names = []
    for source in sorted(file.parent.glob("*.py")):
        text = source.read_text(encoding="utf-8")
        if "@triton_heuristics." in text and "async_compile.triton(" not in text:
            names += [name for name in _KERNEL.findall(text) if name.startswith("triton")][:1]
    return " or ".join(names) or file.stem
