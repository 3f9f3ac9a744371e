# SPDX-License-Identifier: Apache-2.0
"""Counters of two runs beside each other: which moved, and whether for the better.

A counter that had improved once blocked an update of torch in vLLM: that one is not what it was is no defect by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

HIGHER, LOWER = "higher", "lower"

_BETTER = (
    ("_hit", HIGHER),
    ("_hits", HIGHER),
    ("_loaded", HIGHER),
    ("in_workers", HIGHER),
    ("kernels_through_the_pool", HIGHER),
    ("_miss", LOWER),
    ("_misses", LOWER),
    ("_bypass", LOWER),
    ("_saved", LOWER),
    ("_compiles", LOWER),
    ("_compilations", LOWER),
    ("in_process_compiles", LOWER),
    ("graph_breaks", LOWER),
    (".total", LOWER),
)
"""Ends of names, and in which direction a counter of such a name is better: less compiled, more found."""


def better(name: str) -> str:
    """HIGHER, LOWER, or an empty text where nobody can say."""
    return next((way for end, way in _BETTER if name.endswith(end)), "")


def moved(base: Mapping[str, float], head: Mapping[str, float]) -> Iterator[str]:
    """A line for each that is another: `name: 3 -> 2 (better)`. One that is not there has not moved from 0."""
    for name in sorted({*base, *head}):
        before, after = base.get(name, 0), head.get(name, 0)
        if before != after:
            way = better(name)
            gained = (after > before) == (way == HIGHER)
            yield f"{name}: {before:g} -> {after:g} ({(('better' if gained else 'worse') if way else 'moved')})"
