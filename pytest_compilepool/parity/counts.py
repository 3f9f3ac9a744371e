# SPDX-License-Identifier: Apache-2.0
"""Whether the counters of two runs agree, but for those that count something else with a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_compilepool.counters.counts import is_measured
from pytest_compilepool.parity.findings import CANDIDATE, Finding, Side

MAY_DIFFER: dict[str, str] = {
    "inductor.async_compile_cache_miss": (
        "counts every call of AsyncCompile.triton (torch 2.8 and later), and with a pool each kernel is asked "
        "for twice: early, while code is generated, and when the module is loaded"
    ),
    "inductor.async_compile_cache_hit": "the second of these two calls finds the first one's future",
}
"""Counters that a pool moves otherwise, and why."""

_MEASURING = ("benchmarking.", "inductor.coordesc_tuning_bench", "inductor.benchmarking.")


_CHOOSING = (
    "inductor.select_algorithm_",
    "inductor.extern_calls",
    "inductor.triton_bundler_",
    "inductor_metrics.",
)


def measured(side: Side) -> bool:
    """Whether this side chose between kernels by how fast they ran: another run may choose another one."""
    choosing = ("inductor.select_algorithm_autotune", "inductor.coordesc_tuning_bench")
    return side.answer.target is None and any(side.answer.moved.get(name, 0) for name in choosing)


def is_candidate(side: Side, kernel: str) -> bool:
    """Whether a kernel was made to be measured only; without measurements the name says nothing."""
    return kernel == CANDIDATE and measured(side)


def compare_counters(one: Side, other: Side, may_differ: Mapping[str, str]) -> Iterator[Finding]:
    """Every counter that moved otherwise. may_differ: names that may, with the reason; they are told, too."""
    mine, theirs = one.answer.moved, other.answer.moved
    for name in sorted({*mine, *theirs}):
        here, there = mine.get(name, 0), theirs.get(name, 0)
        if here == there or (is_measured(name) and not name.startswith(_MEASURING)):
            continue
        reason = may_differ.get(name) or _why(name, one, other)
        told = f"moved by {here} with {one.label} and by {there} with {other.label}"
        yield Finding("counter", name, told + (f" ({reason})" if reason else ""), fails=reason is None)


def _why(name: str, one: Side, other: Side) -> str | None:
    """A reason that only some runs have."""
    if name.startswith(_MEASURING):
        return "counts measurements, as many as it took"
    if name.startswith(_CHOOSING) and (measured(one) or measured(other)):
        return (
            "templates were chosen by measurements, and a worker, which loads nothing, cannot see what fits"
        )
    if name.startswith("inductor.triton_bundler_"):
        twice = sorted({*sent_twice(one), *sent_twice(other)})
        if twice:
            return f"{', '.join(twice)} was sent to the pool twice, and is saved and loaded twice"
        # By name alone (2.15 makes candidates without a GPU, too): here it excuses a count, and no kernel.
        if any(job.kernel == CANDIDATE for side in (one, other) for job in side.answer.jobs):
            return "a candidate is noted twice: as it comes from the worker, and when it is loaded to be measured"
    return None


def sent_twice(side: Side) -> list[str]:
    """Kernels that more than one job compiled: their text differed in white space only, for torch they are two."""
    sources = [job.source for job in side.answer.jobs if job.source]
    return sorted({job.kernel for job in side.answer.jobs if job.source and sources.count(job.source) > 1})
