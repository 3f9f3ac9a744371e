# SPDX-License-Identifier: Apache-2.0
"""Whether the side that had a pool has used it: jobs in processes that are workers, and torch's own witness."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_compilepool.parity.counts import sent_twice
from pytest_compilepool.parity.findings import CANDIDATE, Finding, Side


def by_workers(side: Side) -> dict[str, int]:
    """The kernels that a worker compiled: pid by key of the source, and by name for artifacts that tell no source."""
    found: dict[str, int] = {}
    for job in side.answer.jobs:
        if job.source and job.outcome == "done" and job.worker not in (None, side.answer.pid):
            found[job.source] = found[f"name:{job.kernel}"] = int(job.worker or 0)
    return found


def share(side: Side) -> tuple[int, int]:
    """How many of the kernels that were compiled a worker compiled: (these, all). Candidates are not counted."""
    done = by_workers(side)
    counted = [source for source, name in side.kernels.items() if name != CANDIDATE]
    return sum(source in done for source in counted), len(counted)


def judge_parallel(side: Side, min_parallel: float | None) -> Iterator[Finding]:
    """What is wrong with a side that should have been parallel. min_parallel: share of the kernels; None: all."""
    done = by_workers(side)
    through, kernels = share(side)
    elsewhere = sorted(name for source, name in side.kernels.items() if source not in done)
    candidates = elsewhere.count(CANDIDATE)
    elsewhere = [name for name in elsewhere if name != CANDIDATE]
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
    if side.answer.jobs:
        yield Finding("parallel", side.label, f"{len(side.answer.jobs)} jobs went to a pool")
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
