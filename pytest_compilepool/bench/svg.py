# SPDX-License-Identifier: Apache-2.0
"""Results as plots: one SVG each, the same to the byte for the same result and the same matplotlib."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_compilepool.bench import pool
from pytest_compilepool.bench.bounds import bound_of
from pytest_compilepool.bench.result import Result

EXTRA = "pip install 'pytest-compilepool[plot]'"

# Six inches of eleven points can still be read at the width of a phone.
_WIDTH = 6
_SETTINGS = {
    "svg.hashsalt": "compilepool",
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.axisbelow": True,
    "text.parse_math": False,
}
_METADATA = {"Date": None, "Creator": "compilepool bench"}
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")

_PARTS = {
    "dynamo": "Dynamo",
    "autograd": "AOTAutograd",
    "inductor": "Inductor, without kernels",
    "other": "the rest",
    "triton": "kernels, in the process",
    "wait": "kernels, waiting for the pool",
}


def available() -> bool:
    """Whether there is a matplotlib. Imports nothing."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_pool(result: Result, file: str) -> None:
    """Each figure of time a line, on a logarithmic scale: medians large, single runs small. Raises OSError."""
    sides = result.sides()
    medians = {side: result.medians(side) for side in sides}
    names = [
        name for name in pool.NAMES if name.endswith("_s") and any(medians[side].get(name) for side in sides)
    ]
    with _figure(
        file, _WIDTH, 1.6 + 0.38 * max(1, len(names)), _title("What a compile pool costs", result)
    ) as figure:
        axes = figure.add_subplot()
        for at, side in enumerate(sides):
            shift = 0.5 * ((at + 0.5) / len(sides) - 0.5)
            colour = _COLOURS[at % len(_COLOURS)]
            for row in result.rows(side).values():
                seen = [(row[name], place + shift) for place, name in enumerate(names) if row.get(name)]
                axes.scatter(*_columns(seen), s=8, color=colour, alpha=0.5, linewidths=0)
            seen = [
                (medians[side][name], place + shift)
                for place, name in enumerate(names)
                if medians[side].get(name)
            ]
            axes.scatter(*_columns(seen), s=42, color=colour, marker="D", linewidths=0, label=str(side))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda seconds, _: _long(seconds))
        axes.xaxis.set_minor_formatter("")
        axes.set_yticks(range(len(names)), [pool.NAMES[name] for name in names])
        axes.invert_yaxis()
        axes.set_xlabel("logarithmic; large: median, small: each run")
        axes.grid(axis="x", alpha=0.3)
        if sides:
            axes.legend(loc="best")


def draw_compile(result: Result, file: str) -> None:
    """A bar for each side, of where the time went, each run's total as a dot, and the bound. Raises OSError."""
    workloads = result.workloads
    height = 1.4 + sum(0.9 + 0.42 * len(result.sides(name)) for name in workloads)
    with _figure(file, _WIDTH, height, _title("Compiles with empty caches", result)) as figure:
        plots = figure.subplots(max(1, len(workloads)), 1, squeeze=False)[:, 0]
        for axes, workload in zip(plots, workloads, strict=False):
            _bars(axes, result, workload)
        handles = {
            label: handle
            for axes in plots
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=10)


def _bars(axes: Any, result: Result, workload: str) -> None:
    sides = result.sides(workload)
    for at, side in enumerate(sides):
        medians, left = result.medians(side), 0.0
        for colour, (name, text) in zip(_COLOURS, _PARTS.items(), strict=False):
            if medians.get(name, 0.0) > 0.0005:
                axes.barh(at, medians[name], left=left, height=0.6, color=colour, label=text)
                left += medians[name]
        totals = [row["total"] for row in result.rows(side).values() if "total" in row]
        axes.scatter(totals, [at] * len(totals), s=12, color="black", zorder=3, label="a run, in all")
        bound = bound_of(result, side)
        if bound is not None:
            where = max(bound.amdahl, bound.chain)
            axes.plot([where, where], [at - 0.4, at + 0.4], color="black", linestyle="--", label="the bound")
    axes.set_yticks(range(len(sides)), [str(side) for side in sides])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title(workload, loc="left", fontsize=11)
    axes.set_xlabel("seconds, medians")
    axes.grid(axis="x", alpha=0.3)


def draw_starts(
    file: str, title: str, names: Mapping[str, str], figures: Mapping[int, Sequence[Mapping[str, float]]]
) -> None:
    """Starts of an engine: for each figure a group of bars, one for each number of processes. Raises OSError.

    names: what each figure is called; figures: rows of single starts by number of processes.
    """
    from pytest_compilepool.bench.rounds import medians

    with _figure(file, _WIDTH, 4.5, title) as figure:
        axes = figure.add_subplot()
        width = 0.8 / max(1, len(figures))
        for at, (processes, rows) in enumerate(figures.items()):
            middle = medians(rows)
            places = [place + (at + 0.5) * width - 0.4 for place in range(len(names))]
            label = f"{processes} process{'es' * (processes > 1)}"
            colour = _COLOURS[at % len(_COLOURS)]
            axes.bar(
                places, [middle.get(name, 0.0) for name in names], 0.9 * width, color=colour, label=label
            )
            for place, name in zip(places, names, strict=True):
                seen = [row[name] for row in rows if name in row]
                axes.scatter([place] * len(seen), seen, s=10, color="black", zorder=3)
        axes.set_xticks(range(len(names)), list(names.values()), rotation=30, ha="right")
        axes.set_ylabel("seconds; bars: medians, dots: each start")
        axes.grid(axis="y", alpha=0.3)
        if figures:
            axes.legend(loc="best")


@contextlib.contextmanager
def _figure(file: str, width: float, height: float, title: str) -> Iterator[Any]:
    """A figure to draw on, which is then written. width, height: inches."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title, fontsize=11)
        yield figure
        FigureCanvasSVG(figure).print_svg(file, metadata=_METADATA)


def _long(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 0.1 else f"{seconds * 1000:g} ms"


def _title(text: str, result: Result) -> str:
    about = result.about
    versions = about.get("versions") or {}
    told = ", ".join(f"{name} {versions[name]}" for name in ("torch", "triton") if name in versions)
    place = f"{about.get('machine', '?')}, {about.get('cpus', '?')} CPUs, {told}"
    device = about.get("device") or about.get("target")
    return f"{text}\n{place}" + (f", for {device}" if device else "")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [one for one, _ in points], [two for _, two in points]
