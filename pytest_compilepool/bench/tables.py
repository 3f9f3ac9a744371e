# SPDX-License-Identifier: Apache-2.0
"""The tables of `compilepool bench pool` and `compilepool bench compile`, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_compilepool.bench import pool
from pytest_compilepool.bench.bounds import bound_of
from pytest_compilepool.bench.result import Result, Side
from pytest_compilepool.bench.workloads import MOST_KERNELS, WORKLOADS
from pytest_compilepool.words import counted

_TIMES = {
    "total": "total",
    "dynamo": "  Dynamo",
    "autograd": "  AOTAutograd",
    "inductor": "  Inductor, without kernels",
    "triton": "  kernels, in the process",
    "wait": "  kernels, waiting for the pool",
    "other": "  the rest",
}

_RATIOS = {
    "total": "times as fast: total",
    "part": "  kernels, as the process sees them",
}
"""Inductor sends a kernel off as soon as it has it and goes on: the process waits for less than the pool takes."""

_BEFORE = {
    "ready": "pool: ready after",
    "primed": "pool: primed after that",
    "first": "first Triton compile in the process",
}


_BUSY = 0.5  # wanted by others, of the CPUs that there are: from there on ratios say little

_EARLY = (
    "  (below the bound: it is of steps that follow each other, and here kernels were compiled while the process was\n"
    "  still generating others)"
)


def figure(name: str, value: float | None) -> str:
    """A figure as people read it. name: its last letters say the unit, `_s` or `_mb`."""
    if value is None:
        return "-"
    if name.endswith("_mb"):
        return f"{value:.1f} MB"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def pool_table(result: Result) -> list[str]:
    """What a pool costs."""
    sides = result.sides()
    if not sides:
        return ["nothing was measured", *_faults(result)]
    medians = {side: result.medians(side) for side in sides}
    lines = [_where(result), *_rounds(result, sides, "what a pool costs, medians")]
    for name, text in pool.NAMES.items():
        if any(name in medians[side] for side in sides):
            if name.startswith("sidecar_cpu"):
                text = f"{text}, {result.about.get('idle_s', 0):g} s"
            lines.append(_row(text, (figure(name, medians[side].get(name)) for side in sides)))
    return lines + _faults(result)


def compile_table(result: Result) -> list[str]:
    """What a pool takes off compiles, and how near that is to what it could."""
    lines = [_where(result)]
    for workload in result.workloads:
        what = WORKLOADS.get(workload, "unknown")
        if workload == "kernels" and "kernels" in result.about:
            what = f"the first {result.about['kernels']} of {MOST_KERNELS} {what}"
        lines += ["", f"{workload} ({what}), for {_target(result)}"]
        lines += _workload(result, result.sides(workload))
    if not result.workloads:
        lines = ["nothing was measured"]
    return lines + _faults(result)


def _workload(result: Result, sides: list[Side]) -> list[str]:
    medians = {side: result.medians(side) for side in sides}
    lines = _rounds(result, sides, "empty caches; medians, seconds")
    for name, text in _TIMES.items():
        if any(medians[side].get(name, 0.0) >= 0.0005 for side in sides):
            lines.append(_row(text, (_seconds(medians[side].get(name)) for side in sides)))
    for name, text in _RATIOS.items():
        ratios = [None if side == result.first(side) else result.ratio(name, side) for side in sides]
        if any(ratios):
            lines.append(_row(text, ("-" if one is None else f"{one:.2f}" for one in ratios)))
    lines.append(_row("kernels", (f"{medians[side]['kernels']:.0f}" for side in sides)))
    for name, text in (("through", "  of them through the pool"), ("workers", "  by so many workers")):
        if any(side.processes > 1 for side in sides):
            cells = (f"{medians[side][name]:.0f}" if side.processes > 1 else "-" for side in sides)
            lines.append(_row(text, cells))
    lines.append(_row("longest kernel", (_seconds(medians[side].get("longest")) for side in sides)))
    lines += _bounds(result, sides)
    if any(name in medians[side] for name in _BEFORE for side in sides):
        lines.append("  before the clock started, and in no figure above:")
    for name, text in _BEFORE.items():
        if any(name in medians[side] for side in sides):
            lines.append(_row(text, (_seconds(medians[side].get(name)) for side in sides)))
    return lines + _across(result, sides)


def _bounds(result: Result, sides: list[Side]) -> list[str]:
    found = {side: bound_of(result, side) for side in sides}
    if all(side.processes == 1 for side in sides):
        return []
    if not any(found.values()):
        return ["  no bound: it takes 1 among the processes"]
    cpus = counted(int(result.about.get("cpus", 1)), "CPU")
    early = any(bound is not None and bound.above < -0.02 for bound in found.values())
    return [
        _row(
            f"bound: kernels shared out, {cpus}", (_seconds(b.amdahl if b else None) for b in found.values())
        ),
        _row("bound: the longest kernel", (_seconds(b.chain if b else None) for b in found.values())),
        _row("total against the larger bound", (f"{b.above:+.1%}" if b else "-" for b in found.values())),
        *([_EARLY] if early else []),
    ]


def _across(result: Result, sides: list[Side]) -> list[str]:
    """Each side that was primed, against one process as it comes, where both were measured."""
    plain = next((side for side in sides if side.processes == 1 and not side.primed), None)
    lines = []
    for side in sides:
        ratio = result.ratio("total", side, plain) if plain and side.primed and side.processes > 1 else None
        if ratio:
            lines.append(f"  {side}, against 1 process that was not: {ratio:.2f} times as fast")
    return lines


def _rounds(result: Result, sides: list[Side], what: str) -> list[str]:
    rounds = "/".join(dict.fromkeys(str(len(result.rows(side))) for side in sides))
    return [f"{what} of {rounds} {'run' if rounds == '1' else 'runs'}", _row("", map(str, sides))]


def _row(text: str, cells: Iterable[str]) -> str:
    return f"  {text:<36}" + "".join(f"{cell:>22}" for cell in cells)


def _seconds(value: float | None) -> str:
    return "-" if not value else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _target(result: Result) -> str:
    target, device = result.about.get("target", "?"), result.about.get("device")
    return f"{device} ({target})" if device else f"{target}, which need not be here"


def _where(result: Result) -> str:
    """The machine, and what was on it."""
    about = result.about
    versions = about.get("versions") or {"python": about.get("python", "?")}
    told = ", ".join(f"{name} {text}" for name, text in versions.items())
    cpus = int(about.get("cpus", 1))
    busy = float(about.get("load", 0.0)) > _BUSY * cpus
    warning = (
        f"\nload average before the first run: {about.get('load')}; something else may have been at work"
        if busy
        else ""
    )
    return f"{about.get('machine', '?')}, {counted(cpus, 'CPU')}; {told}{warning}"


def _faults(result: Result) -> list[str]:
    return (
        ["", "failed, and in no figure:", *(f"  {fault}" for fault in result.faults)] if result.faults else []
    )
