# SPDX-License-Identifier: Apache-2.0
"""Starts with different numbers of compile processes, one after the other and alternating, and what they took."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_compilepool.bench import rounds
from pytest_compilepool.bench.result import SCHEMA, BadResult, check_schema, number
from pytest_compilepool.vllm.engines.order import Engine, Order, Run
from pytest_compilepool.vllm.engines.start import run

_AT_ONCE = 16  # each holds a gigabyte, and waits for those before it

IMPORT_SECONDS = 300.0
"""Within which interpreters that import vLLM all at once must have done so."""


@dataclass(frozen=True)
class Sample:
    """One start. pair: number of its round, from 0; processes: of the pool, 1 for none; phase: cold or warm; known: its
    figures, where they come from a file."""

    pair: int
    processes: int
    phase: str
    run: Run
    known: Mapping[str, float] | None = None

    def figures(self) -> dict[str, float]:
        """In seconds, but `share` (of kernels that came from workers, 0 to 1) and `kernels`."""
        if self.known is not None:
            return dict(self.known)
        engine = self.run.engine
        # A warm start compiles no graph, and vLLM says nothing of it.
        found = {name: engine.logged.get(name, 0.0) for name in FIGURES}
        found["init"] = engine.seconds["init"]
        for event in _OF_A_POOL:
            took = [
                one["took"] for one in self.run.events if one["what"] == event and one["took"] is not None
            ]
            found[event] = took[0] if took else 0.0
        found["triton"], found["wait"] = engine.clock["triton"], engine.clock["wait"]
        total = sum(engine.kernels.values())
        found["kernels"] = total or engine.clock["kernels"]
        found["share"] = engine.kernels.get("pool", 0) / total if total else 0.0
        return found


FIGURES = ("graph_compile", "torch_compile", "init_engine")
"""What the pull request gave figures of, by vLLM's own log."""


@dataclass
class Measured:
    """All starts of one measurement. faults: a sentence for each start that failed; those are in no figure."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    failed: list[Sample] = field(default_factory=list)

    def of(self, processes: int, phase: str) -> dict[int, dict[str, float]]:
        """Figures by pair."""
        chosen = [one for one in self.samples if (one.processes, one.phase) == (processes, phase)]
        return {one.pair: one.figures() for one in chosen}

    def medians(self, processes: int, phase: str) -> dict[str, float]:
        """By name; empty where there is no start."""
        return rounds.medians(self.of(processes, phase).values())

    def change(self, name: str, processes: int, against: int, phase: str) -> float | None:
        """Median over pairs of how much of it came off, in per cent; negative for more. None without a pair."""
        ours, theirs = self.of(processes, phase), self.of(against, phase)
        pairs = [
            100 * (1 - ours[pair][name] / theirs[pair][name])
            for pair in ours.keys() & theirs.keys()
            if theirs[pair][name] and ours[pair][name]
        ]
        return statistics.median(pairs) if pairs else None

    def bound(self, against: int) -> dict[str, float]:
        """What Amdahl's law leaves: how much of each figure compiling kernels in one process is, in per cent."""
        medians = self.medians(against, "cold")
        return {name: 100 * medians["triton"] / medians[name] for name in FIGURES if medians.get(name)}

    def phases(self, processes: int) -> dict[str, float]:
        """torch's own account of a cold start, medians of seconds by phase; a phase within another counts in both."""
        chosen = [one for one in self.samples if (one.processes, one.phase) == (processes, "cold")]
        names = {name for one in chosen for name in one.run.engine.phases}
        return {
            name: statistics.median(one.run.engine.phases.get(name, 0.0) for one in chosen) for name in names
        }


def measure(
    order: Order,
    processes: Sequence[int],
    runs: int,
    *,
    warm: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Alternate: in each of so many rounds one cold start for each number of processes, in turning order.

    order: of a start, without its processes; warm: so many rounds of warm starts follow, over the caches of the first
    round; say: told a line after each. Interpreters import vLLM before any of them starts its engine, as many at once as
    there are CPUs: an import takes as long as a start, and is not what is measured. A cold start has caches of its own.
    """
    with tempfile.TemporaryDirectory(prefix="compilepool-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        turns = [(*turn, "cold") for turn in rounds.turns(processes, runs)]
        turns += [(*turn, "warm") for turn in rounds.turns(processes, warm)]
        measured = Measured()
        at_once = max(1, min(_AT_ONCE, len(os.sched_getaffinity(0))))
        for start in range(0, len(turns), at_once):
            _batch(order, turns[start : start + at_once], folder, measured, say)
        return measured


def _batch(
    order: Order,
    turns: Sequence[tuple[int, int, str]],
    folder: Path,
    measured: Measured,
    say: Callable[[str], None],
) -> None:
    stop = threading.Event()
    gates = [folder / f"gate-{pair}-{number}-{phase}" for pair, number, phase in turns]
    with ThreadPoolExecutor(len(turns)) as pool:
        futures = [
            pool.submit(
                run,
                replace(order, processes=str(number) if number > 1 else "", gate=str(gate)),
                folder / f"root-{0 if phase == 'warm' else pair}-{number}",
                modelinfos=folder / "modelinfos",
                stop=stop,
            )
            for (pair, number, phase), gate in zip(turns, gates, strict=True)
        ]
        try:
            _imported(futures, gates)
            for turn, gate, future in zip(turns, gates, futures, strict=True):
                gate.touch()
                _note(Sample(*turn, future.result()), measured, say)
        except BaseException:
            stop.set()  # whoever still waits for a turn is ended, not started
            raise


def _imported(futures: Sequence[Future[Run]], gates: Sequence[Path]) -> None:
    """Until each has, or has ended, or the time is over: what is late then takes its turn late."""
    deadline = time.monotonic() + IMPORT_SECONDS
    for future, gate in zip(futures, gates, strict=True):
        ready = gate.with_name(f"{gate.name}.ready")
        while not ready.exists() and time.monotonic() < deadline:
            if wait([future], 0.05).done:
                break


def _note(sample: Sample, measured: Measured, say: Callable[[str], None]) -> None:
    who = (
        f"round {sample.pair + 1}, {sample.processes} process{'es' * (sample.processes > 1)}, {sample.phase}"
    )
    found = sample.run
    unsaid = [name for name in FIGURES if found.engines and not found.engine.logged.get(name)]
    if sample.phase == "cold" and unsaid and not found.error:
        found.error = f"vLLM's log has no line with {', '.join(unsaid)}"
    if sample.phase == "warm" and sample.processes in {one.processes for one in measured.failed}:
        found.error = "its cold start failed"
    if found.error or not found.engines:
        measured.failed.append(sample)
        measured.faults.append(f"{who}: {(found.error or 'no engine').strip().splitlines()[0][:300]}")
        say(measured.faults[-1])
        return
    measured.samples.append(sample)
    figures = sample.figures()
    say(f"{who}: " + ", ".join(f"{name} {figures[name]:.2f} s" for name in FIGURES))


def as_json(measured: Measured, processes: Sequence[int], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, as plain values. about: what was measured, and where."""
    return {
        "schema": SCHEMA,
        "bench": "vllm",
        "versions": measured.samples[0].run.versions if measured.samples else {},
        **about,
        "faults": measured.faults,
        "samples": [
            {
                "pair": one.pair,
                "processes": one.processes,
                "phase": one.phase,
                **one.figures(),
                "blocks": one.run.engine.blocks,
                "captures": one.run.engine.captures,
                "counters": one.run.engine.counters,
                "phases": one.run.engine.phases,
            }
            for one in measured.samples
        ],
        "medians": {
            phase: {str(number): measured.medians(number, phase) for number in processes}
            for phase in ("cold", "warm")
        },
    }


_KEPT = ("blocks", "captures", "counters", "phases")


_OF_A_POOL = ("warm", "ready", "quiesce", "shutdown")
"""Events whose lengths are figures of a start, 0 where there was no pool."""


def from_json(told: Any) -> tuple[Measured, dict[str, Any]]:
    """The reverse: the starts, and what was measured and where. Raises BadResult."""
    check_schema(told)
    if not isinstance(told, Mapping) or told.get("bench", "vllm") != "vllm" or "samples" not in told:
        raise BadResult("it is no result of `compilepool bench vllm`")
    about = {
        name: value
        for name, value in told.items()
        if name not in ("schema", "faults", "samples", "medians", "bench")
    }
    try:
        measured = Measured(
            [_sample(one) for one in told["samples"]], [str(one) for one in list(told.get("faults", []))]
        )
        seen = dict.fromkeys(one.processes for one in measured.samples)
        processes = [round(number(one)) for one in told.get("processes", seen)]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadResult(f"a start in it cannot be read: {type(error).__name__}: {error}") from None
    if len(processes) < 2 or len({*processes}) < len(processes):
        raise BadResult("it compares no two numbers of processes")
    if not {one.processes for one in measured.samples} <= {*processes}:
        raise BadResult("its starts have other numbers of processes than it says")
    return measured, {**about, "processes": processes}


def _sample(told: Mapping[str, Any]) -> Sample:
    phases = {str(name): number(value) for name, value in dict(told.get("phases", {})).items()}
    engine = Engine(**{name: told[name] for name in _KEPT if name in told} | {"phases": phases})
    aside = (*_KEPT, "pair", "processes", "phase")
    figures = dict.fromkeys(_OF_A_POOL, 0.0)
    figures |= {str(name): number(value) for name, value in told.items() if name not in aside}
    if told["phase"] not in ("cold", "warm"):
        raise ValueError(f"phase {told['phase']!r}")
    missing = [
        name for name in (*FIGURES, "init", "triton", "wait", "kernels", "share") if name not in figures
    ]
    if missing:
        raise KeyError(missing[0])
    return Sample(
        round(number(told["pair"])),
        round(number(told["processes"])),
        str(told["phase"]),
        Run(engines=[engine]),
        figures,
    )
