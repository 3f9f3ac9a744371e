# SPDX-License-Identifier: Apache-2.0
"""Real Inductor kernels for GPUs that are not there: one process and four make the same; planted differences are named."""

from __future__ import annotations

import re

import plants
import pytest
from tiers import further

from pytest_compilepool.parity.check import ParityError
from pytest_compilepool.workloads import torch_programs

pytestmark = pytest.mark.usefixtures("offline_here")


@pytest.mark.parametrize("target", ["cuda:90", *further("cuda:100", "hip:gfx942")])
def test_one_process_and_four_make_the_same_kernels(compile_parity, target):
    report = compile_parity.check(
        torch_programs.run_all,
        processes=(1, 4),
        repeat=1,
        target=target,
        compile=False,
        # One for both, or candidates differ on 2.11: see docs/explanation/parity.md.
        environment={"TRITON_PTXAS_PATH": plants.torch_ptxas()},
    )
    single, pool = report.sides
    assert report.kernels >= 20
    assert report.failures == []
    # Parallel is proved by jobs with worker pids, and by nothing that the parent compiled itself.
    pids = {job.worker for job in pool.answer.jobs}
    assert pids <= set(pool.answer.workers)
    assert len(pids) > 1
    assert pool.answer.pid not in pids
    assert [seen for seen in pool.answer.compiles if not seen.cached] == []
    assert all(pool.answer.parallel)
    # And single-threaded by everything that the interpreter compiled itself.
    assert single.answer.jobs == []
    assert {seen.hash for seen in single.answer.compiles if not seen.cached} == {
        artifact.hash for artifact in single.artifacts
    }
    kinds = {name.split("_")[1] for name in single.kernels.values() if name.startswith("triton_")}
    assert kinds >= {"poi", "red", "per", "tem", "for"}
    assert "scaled_add_kernel" in single.kernels.values()
    assert len(single.answer.launches) >= 20
    # What was the same is not kept.
    assert not pool.place.exists()


def test_a_planted_difference_of_each_kind_is_found_and_named(compile_parity):
    names = ("pointwise", "cumulative_sum", "softmax", "gather", "persistent_reduction", "transpose")
    with pytest.raises(ParityError) as caught:
        compile_parity.check(
            torch_programs.run_all,
            (names,),
            processes=(1, 2),
            repeat=1,
            target="cuda:90",
            compile=False,
            before=plants.several,
        )
    (report,) = compile_parity.reports
    text = str(caught.value)
    found: dict[tuple[str, str], str] = {}
    for finding in report.failures:
        key = finding.kind, finding.what
        found[key] = f"{found.get(key, '')}{finding.text}\n"

    def of(kind: str, part: str) -> str:
        return next(text for (one, what), text in found.items() if one == kind and part in what)

    assert "num_warps is 4 with 1 process and 8 with 2 processes" in of("launch", "add_mul_relu_sin")
    # One instruction.
    assert "add.f32" in of("ptx", "cumsum")
    assert "sub.f32" in of("ptx", "cumsum")
    assert "the first other instruction is number" in of("code", "cumsum")
    assert re.search(r"shared is (\d+) with 1 process and (\d+) with 2 processes", of("launch", "softmax"))
    # A kernel that is missing.
    assert "made with 1 process" in of("kernel", "abs_sum")
    assert "missing with 2 processes" in of("kernel", "abs_sum")
    # A kernel that the parent compiled.
    assert "compiled by the parent: triton_poi_fused_index_mul_0" in of("parallel", "2 processes")
    # The one that nothing was done to is not among them.
    assert not any("transpose" in what or "clone_t" in what for _, what in found)
    # The folders are kept, and the report says where and how to repeat it.
    for side in report.sides:
        assert side.place.is_dir()
        assert str(side.place) in text
    assert "-m pytest_compilepool.fresh.child" in text


def test_a_kernel_that_the_parent_compiled_again_is_not_the_workers(compile_parity):
    with pytest.raises(
        ParityError, match=r"parallel: 2 processes, subprocess: 0 of 1 kernels were compiled by workers"
    ):
        compile_parity.check(
            torch_programs.run_all,
            (("softmax",),),
            processes=(1, 2),
            repeat=1,
            target="cuda:90",
            compile=False,
            before=plants.parent_again,
        )


def test_a_kernel_that_does_not_compile_fails_for_the_same_cause(compile_parity):
    report = compile_parity.check(
        torch_programs.run_compiled,
        ("broken_kernel",),
        processes=(1, 2),
        repeat=1,
        target="cuda:90",
        compile=False,
        raises="planted: this kernel does not compile",
    )
    texts = [finding.text for finding in report.findings if finding.kind == "error"]
    assert len(texts) == 2
    assert all("never_compiles_kernel" in text for text in texts), texts
    assert report.failures == []


@pytest.mark.thorough
def test_a_kernel_that_should_have_failed_in_a_worker(compile_parity):
    with pytest.raises(
        ParityError, match=r"parallel: never_compiles_kernel: with 2 processes, subprocess it did not"
    ):
        compile_parity.check(
            torch_programs.run_compiled,
            ("broken_kernel",),
            processes=(1, 2),
            repeat=1,
            target="cuda:90",
            compile=False,
            raises="planted: this kernel does not compile",
            before=plants.in_the_parent,
        )


@pytest.mark.thorough
def test_that_kernel_fails_the_check_of_who_expects_none(compile_parity):
    with pytest.raises(ParityError) as caught:
        compile_parity.check(
            torch_programs.run_compiled, ("broken_kernel",), processes=(1, 2), target="cuda:90", compile=False
        )
    assert "none was expected" in str(caught.value)
    assert "planted: this kernel does not compile" in str(caught.value)
