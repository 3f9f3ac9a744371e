# SPDX-License-Identifier: Apache-2.0
"""Counters of one whole interpreter: what a fresh one moved, and what its names may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_compilepool.counters.counts import Counts
from pytest_compilepool.counters.errors import HIDDEN
from pytest_compilepool.counters.reader import Reader, Reading
from pytest_compilepool.counters.torchsources import (
    InductorMetricsSource,
    MetricsSource,
    TorchCounters,
    TorchNames,
    VllmSource,
)
from pytest_compilepool.records import JobRecord
from pytest_compilepool.torch_compat.compiles import TritonCompile

__tracebackhide__ = HIDDEN


def interpreter_reader() -> Reader:
    """A reader over torch's counters and metrics and vLLM's counters, without pytest and without a pool."""
    names = TorchNames()
    return Reader([TorchCounters(names), MetricsSource(names), InductorMetricsSource(names), VllmSource()])


def moved_between(reader: Reader, before: Reading, after: Reading) -> dict[str, int]:
    """By how much each counter moved, by dotted name."""
    return {move.name: move.by for move in reader.moves(before, after)}


def pool_counts(jobs: Iterable[JobRecord], compiles: Iterable[TritonCompile] | None) -> dict[str, int]:
    """The pool's own counters from its records. compiles: what Triton did in the interpreter itself; None: unknown."""
    jobs = list(jobs)
    ended = {
        outcome: sum(job.outcome == outcome for job in jobs) for outcome in ("done", "failed", "cancelled")
    }
    counts = {
        "pool.jobs_submitted": len(jobs),
        **{f"pool.jobs_{outcome}": number for outcome, number in ended.items()},
        "pool.workers_used": len({job.worker for job in jobs if job.worker is not None}),
    }
    if compiles is not None:
        counts["pool.in_process_compiles"] = sum(not seen.cached for seen in compiles)
    return counts


def named_counts(numbers: Mapping[str, int], origin: str) -> Counts:
    """Numbers that were read elsewhere, by name: 0 for a counter that never moved, an error for none that there is.

    origin: who asks, in words.
    """
    reader = interpreter_reader()

    def check(name: str) -> None:
        if name not in numbers:
            reader.check(name, Reading(numbers), origin)

    return Counts(numbers, check)
