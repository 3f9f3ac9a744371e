# SPDX-License-Identifier: Apache-2.0
"""How short a compile could be with so many processes: what one process takes says it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from pytest_compilepool.bench.result import Result, Side
from pytest_compilepool.bench.rounds import Row


@dataclass(frozen=True)
class Bound:
    """Medians over the rounds. amdahl: seconds of what is not compiled by Triton, and the Triton part shared out evenly
    over processes or CPUs, whichever are fewer; chain: seconds with the longest kernel instead of the Triton part, which
    no number of processes makes shorter; above: by how much of the larger one the measured total is longer, 0.1 for 10 %.
    """

    amdahl: float
    chain: float
    above: float


def amdahl(one: Row, processes: int, cpus: int) -> float:
    """Seconds. one: figures of the compile with one process; cpus: that it may use."""
    return one["total"] - one["part"] + one["part"] / max(1, min(processes, cpus))


def chain(one: Row) -> float:
    """Seconds, however many processes there are. one: figures of the compile with one process."""
    return one["total"] - one["part"] + one["longest"]


def bound_of(result: Result, side: Side) -> Bound | None:
    """The bound of a side, each round by itself; None without a round of one process of the same kind."""
    cpus = int(result.about.get("cpus", 1))
    singles = result.rows(Side(1, side.primed, side.workload))
    rows = result.rows(side)
    found = []
    for number in sorted(singles.keys() & rows.keys()):
        one = singles[number]
        if not {"total", "part", "longest"} <= one.keys() or "total" not in rows[number]:
            continue
        two = amdahl(one, side.processes, cpus), chain(one)
        found.append((*two, rows[number]["total"] / max(two) - 1 if max(two) > 0 else 0.0))
    if side.processes < 2 or not found:
        return None
    return Bound(*(statistics.median(values) for values in zip(*found, strict=True)))
