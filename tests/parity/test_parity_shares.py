# SPDX-License-Identifier: Apache-2.0
"""How much the workers have compiled, from the records of their jobs."""

from __future__ import annotations

import dataclasses

from pytest_compilepool.parity.findings import CANDIDATE, Side
from pytest_compilepool.records import JobRecord
from pytest_compilepool.torch_compat.compiles import TritonCompile
from pytest_compilepool.torch_compat.kernels import Asked


def job(kernel: str, source: str, worker: int | None, outcome: str = "done") -> JobRecord:
    return JobRecord(1, "compile", kernel, source, 0.0, worker, outcome=outcome)


def with_jobs(one: Side, jobs: list[JobRecord], **more: object) -> Side:
    return dataclasses.replace(
        one,
        answer=dataclasses.replace(
            one.answer, processes=2, jobs=jobs, compiles=[], **{"parallel": [True], **more}
        ),
    )


def test_only_a_job_that_a_worker_has_done_counts(sides):
    from pytest_compilepool.parity.parallel import judge_parallel, share

    one, _ = sides()
    sources = list(one.kernels)
    good = [job(one.kernels[source], source, 77) for source in sources]
    assert share(with_jobs(one, good)) == (3, 3)
    assert list(judge_parallel(with_jobs(one, good), None)) == []
    for bad in (
        job(one.kernels[sources[0]], sources[0], None),  # nobody took it up
        job(one.kernels[sources[0]], sources[0], one.answer.pid),  # the parent itself
        job(one.kernels[sources[0]], sources[0], 77, "failed"),
        job("another", "another", 77),
    ):
        lacking = with_jobs(one, [bad, *good[1:]])
        assert share(lacking) == (2, 3)
        found = [finding for finding in judge_parallel(lacking, None) if finding.fails]
        assert "2 of 3 kernels were compiled by workers, wanted: all" in found[0].text
        assert one.kernels[sources[0]] in found[0].text
        assert [finding for finding in judge_parallel(lacking, 0.6) if finding.fails] == []


def test_candidates_are_left_out_where_something_was_measured_only(sides):
    from pytest_compilepool.parity.parallel import share

    one, _ = sides()
    named = [dataclasses.replace(artifact, kernel=CANDIDATE) for artifact in one.artifacts]
    candidates = dataclasses.replace(with_jobs(one, []), artifacts=named)
    assert share(candidates) == (0, 3)
    moved = {"inductor.select_algorithm_autotune": 1}
    measuring = dataclasses.replace(candidates.answer, target=None, moved=moved)
    assert share(dataclasses.replace(candidates, answer=measuring)) == (0, 0)


def test_torchs_own_witness_must_agree(sides):
    from pytest_compilepool.parity.parallel import judge_parallel, judge_single

    one, _ = sides()
    good = [job(name, source, 77) for source, name in one.kernels.items()]
    (finding,) = judge_parallel(with_jobs(one, good, parallel=[]), None)
    assert "says nothing" in finding.text
    assert not finding.fails
    (finding,) = judge_parallel(with_jobs(one, good, parallel=[True, False]), None)
    assert "1 of 2 compiles did not use the pool" in finding.text
    assert (
        list(judge_single(dataclasses.replace(one, answer=dataclasses.replace(one.answer, parallel=[False]))))
        == []
    )
    asked = [Asked("triton", "triton_poi_0", "x", "pool"), Asked("triton", "triton_poi_1", "y", "parent")]
    found = list(judge_single(with_jobs(one, [], parallel=[True], asked=asked)))
    assert [finding.text for finding in found] == [
        "there should be no pool, and one was given triton_poi_0",
        "torch says that a pool was used",
    ]


def test_what_the_parent_compiled_beside_the_workers_is_told(sides):
    from pytest_compilepool.parity.parallel import judge_parallel, share

    one, _ = sides()
    good = [job(name, source, 77) for source, name in one.kernels.items()]
    sources = [artifact.source for artifact in one.artifacts]
    (several, *_) = (artifact for artifact in one.artifacts if sources.count(artifact.source) > 1)
    seen = [TritonCompile(several.kernel, several.hash, False, 0.0)]
    pool = with_jobs(one, good)
    (finding,) = judge_parallel(
        dataclasses.replace(pool, answer=dataclasses.replace(pool.answer, compiles=seen)), None
    )
    assert finding.what == several.kernel
    assert "the parent compiled 1 configurations itself" in finding.text
    assert not finding.fails
    # Where it compiled all of them, nothing is left that a worker had compiled.
    every = [TritonCompile(artifact.kernel, artifact.hash, False, 0.0) for artifact in one.artifacts]
    again = dataclasses.replace(pool, answer=dataclasses.replace(pool.answer, compiles=every))
    assert share(again) == (0, 3)
    assert any(finding.fails for finding in judge_parallel(again, None))
