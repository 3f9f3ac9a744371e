# SPDX-License-Identifier: Apache-2.0
"""Whether the side that had a pool has used it: jobs in processes that are workers, and torch's own witness."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_compilepool.parity.counts import is_candidate, sent_twice
from pytest_compilepool.parity.cpp import cpp_kernels
from pytest_compilepool.parity.errors import cause_of
from pytest_compilepool.parity.findings import Finding, Side
from pytest_compilepool.records import JobRecord


def by_workers(side: Side) -> dict[str, int]:
    """The kernels that a worker compiled: pid by key of the source, and by name for artifacts that tell no source."""
    found: dict[str, int] = {}
    broken_off = side.answer.failure is not None  # nobody waits for the other jobs, then
    for job in side.answer.jobs:
        elsewhere = job.worker not in (None, side.answer.pid)
        if job.source and elsewhere and (job.outcome == "done" or broken_off):
            found[job.source] = found[f"name:{job.kernel}"] = int(job.worker or 0)
    for source in _made_again(side):
        found.pop(source, None)
    return found


def _made_again(side: Side) -> set[str]:
    """The kernels of which the parent compiled every configuration itself, whatever workers had done before."""
    here = {seen.hash for seen in side.answer.compiles if not seen.cached}
    by_others = {artifact.source for artifact in side.artifacts if artifact.hash not in here}
    return {artifact.source for artifact in side.artifacts} - by_others


def share(side: Side) -> tuple[int, int]:
    """How many of the kernels that were compiled a worker compiled: (these, all). Candidates are not counted."""
    done = by_workers(side)
    counted = [source for source, name in side.kernels.items() if not is_candidate(side, name)]
    return sum(source in done for source in counted), len(counted)


def judge_parallel(side: Side, min_parallel: float | None) -> Iterator[Finding]:
    """What is wrong with a side that should have been parallel. min_parallel: share of the kernels; None: all."""
    if not side.kernels and not cpp_kernels(side) and min_parallel != 0:
        yield Finding(
            "parallel",
            side.label,
            "no kernel was compiled, so this proves nothing about the pool; min_parallel=0 allows that",
        )
    yield from _judge_share(side, min_parallel)


def judge_failed(side: Side, min_parallel: float | None) -> Iterator[Finding]:
    """What is wrong with a side that should have been parallel and ended with an error."""
    cause = cause_of(side)
    assert cause is not None
    failed = {
        job.kernel
        for job in side.answer.jobs
        if job.outcome == "failed" and job.worker not in (None, side.answer.pid)
    }
    for kernel in cause.kernels:
        if kernel not in failed and min_parallel != 0:
            yield Finding("parallel", kernel, f"with {side.label} it did not fail in a worker")
    if not cause.kernels:
        told = "no kernel failed to compile, so this error proves nothing about the pool; min_parallel=0 allows that"
        yield Finding("parallel", side.label, told, fails=min_parallel != 0)
    yield from _judge_share(side, min_parallel)


def judge_found(side: Side) -> Iterator[Finding]:
    """Kernels that were compiled, and of which nothing is where it should be: then nothing of them was compared."""
    hashes = {artifact.hash for artifact in side.artifacts}
    names = {artifact.kernel for artifact in side.artifacts}
    lost = {job.kernel for job in side.answer.jobs if job.outcome == "done" and _lost(side, job, names)}
    lost |= {seen.kernel for seen in side.answer.compiles if seen.hash and seen.hash not in hashes}
    for kernel in sorted(lost):
        yield Finding(
            "kernel",
            kernel,
            f"it was compiled with {side.label}, and nothing of it is in the cache folder {side.folders.triton}",
        )


def _lost(side: Side, job: JobRecord, names: set[str]) -> bool:
    return bool(job.source) and job.source not in side.kernels and job.kernel not in names


def _judge_share(side: Side, min_parallel: float | None) -> Iterator[Finding]:
    done = by_workers(side)
    through, kernels = share(side)
    elsewhere = sorted(name for source, name in side.kernels.items() if source not in done)
    candidates = sum(is_candidate(side, name) for name in elsewhere)
    elsewhere = [name for name in elsewhere if not is_candidate(side, name)]
    if through < (kernels if min_parallel is None else min_parallel * kernels):
        wanted = "all" if min_parallel is None else f"{min_parallel:.0%}"
        yield Finding(
            "parallel",
            side.label,
            f"{through} of {kernels} kernels were compiled by workers, wanted: {wanted}; "
            f"compiled by the parent: {', '.join(elsewhere)}",
        )
    if candidates:
        text = f"the parent compiled {candidates} candidates itself, in order to measure them"
        yield Finding("parallel", side.label, text, fails=False)
    witness = side.answer.parallel
    if through and not witness:
        text = "torch's own witness, feature_usage['parallel_compile_post_warmup'], says nothing"
        yield Finding("parallel", side.label, text, fails=False)
    if kernels and witness and not elsewhere and not candidates and not all(witness):
        yield Finding(
            "parallel",
            side.label,
            "torch's own witness, feature_usage['parallel_compile_post_warmup'], says that "
            f"{witness.count(False)} of {len(witness)} compiles did not use the pool, while all {kernels} kernels "
            "were compiled by workers",
        )
    yield from _also_in_the_parent(side, done)
    yield from _unfinished(side)
    for name in sent_twice(side):
        yield Finding("parallel", name, f"with {side.label} more than one job compiled it", fails=False)


def _unfinished(side: Side) -> Iterator[Finding]:
    """Jobs that failed, or that nobody waited for: candidates that were tried and dropped, as a rule."""
    for job in side.answer.jobs:
        if job.kernel and job.outcome != "done" and job.source not in side.kernels:
            yield Finding(
                "parallel",
                job.kernel,
                f"with {side.label}: its job is {job.outcome}, nothing came of it",
                False,
            )


def judge_single(side: Side) -> Iterator[Finding]:
    """What is wrong with a side that should have had no pool."""
    sent = sorted({asked.name for asked in side.answer.asked if asked.route == "pool"})
    if sent:
        yield Finding("parallel", side.label, f"there should be no pool, and one was given {', '.join(sent)}")
    if any(side.answer.parallel):
        yield Finding("parallel", side.label, "torch says that a pool was used")


def _also_in_the_parent(side: Side, done: dict[str, int]) -> Iterator[Finding]:
    """What the parent compiled of kernels that a worker had: for rblock scaling, for tuning, for a measurement."""
    source_of = {artifact.hash: artifact for artifact in side.artifacts}
    also: dict[str, int] = {}
    for seen in side.answer.compiles:
        artifact = source_of.get(seen.hash)
        if not seen.cached and artifact is not None and artifact.source in done:
            also[artifact.kernel] = also.get(artifact.kernel, 0) + 1
    for kernel, number in sorted(also.items()):
        text = f"with {side.label} the parent compiled {number} configurations itself, beside what workers compiled"
        yield Finding("parallel", kernel, text, fails=False)
