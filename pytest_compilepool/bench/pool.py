# SPDX-License-Identifier: Apache-2.0
"""What a pool costs, by its number of processes: `compilepool bench pool`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytest_compilepool.bench import inside, rounds, starts
from pytest_compilepool.bench.result import Result, Sample, Side

NAMES = {
    "warm_pool_s": "warm: the call returns",
    "ready_s": "ready after that",
    "primed_s": "primed after that",
    "first_job_s": "first job",
    "job_round_trip_s": "job, there and back",
    "first_kernel_s": "first Triton compile in a worker",
    "quiesce_call_s": "quiesce: the call returns",
    "workers_gone_s": "quiesce: workers gone",
    "first_job_after_quiesce_s": "first job after quiesce",
    "recycle_s": "recycle",
    "shutdown_s": "shutdown",
    "sidecar_cpu_after_quiesce_s": "CPU of the quiesced sidecar",
    "sidecar_uss_mb": "sidecar, USS",
    "sidecar_rss_mb": "sidecar, RSS",
    "worker_uss_mb": "largest fresh worker, USS",
    "worker_rss_mb": "largest fresh worker, RSS",
}
"""The figures of `measure_pool` that are shown, in order, and what each is."""


def measure(
    sides: Sequence[Side],
    runs: int,
    *,
    target: str,
    idle: float,
    limit: float,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """So many rounds, each with one pool for each side, in turning order, each in a fresh interpreter.

    sides: at least 2 processes each; target: as Triton takes it, an empty text where no kernel is to be compiled;
    idle: seconds for which the quiesced sidecar is watched; limit: seconds for one pool; say: told a line after each.
    """
    result = Result("pool", {**starts.machine(), "target": target, "idle_s": idle, "runs": runs})
    for number, side in rounds.turns(sides, runs):
        who = f"round {number + 1}, {side}"
        asked = {
            "processes": side.processes,
            "target": target,
            "primed": side.primed,
            "idle": idle,
            "limit": limit,
        }
        try:
            with starts.started(inside.pool, asked, limit=limit) as start:
                figures = _figures(start.told)
                result.about.setdefault("versions", start.answer.versions)
        except starts.StartFailed as error:
            result.faults.append(f"{who}: {error}")
            say(result.faults[-1])
            continue
        result.samples.append(Sample(number, side, figures, {"start_method": start.told["start_method"]}))
        say(f"{who}: ready after {figures['warm_pool_s'] + figures['ready_s']:.2f} s")
    return result


def _figures(told: dict[str, Any]) -> dict[str, float]:
    """Those that this torch gives."""
    return {name: told[name] for name in NAMES if told.get(name) is not None}
