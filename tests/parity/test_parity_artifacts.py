# SPDX-License-Identifier: Apache-2.0
"""Comparing what lies in two cache folders: real kernels, compiled once, and what is then done to a copy of them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from pytest_compilepool.fresh import callables
from pytest_compilepool.fresh.order import Answer, Order
from pytest_compilepool.fresh.run import Folders, run
from pytest_compilepool.parity import canonical, choices, kernels
from pytest_compilepool.parity.artifacts import UnreadableArtifact, read_artifacts
from pytest_compilepool.parity.check import ParityError
from pytest_compilepool.parity.findings import CANDIDATE, Side
from pytest_compilepool.records import JobRecord
from pytest_compilepool.torch_compat.compiles import TritonCompile
from pytest_compilepool.torch_compat.kernels import Asked
from pytest_compilepool.workloads import torch_programs

KERNELS = ("softmax", "transpose", "gather")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, offline_here):
    """Three kernels for cuda:90, compiled by one thread; gives the answer and the folder."""
    folder = tmp_path_factory.mktemp("compiled") / "here"
    folders = Folders.below(folder / "caches", folder / "run")
    work = callables.pack((torch_programs.run_all, (KERNELS,), {}), "here")
    answer = run(Order(work, tuple(sys.path), target="cuda:90", limit=120), folders)
    assert answer.failure is None
    return answer, folder


def side(answer: Answer, folder: Path, label: str, compiled_in: Path) -> Side:
    folders = Folders.below(folder / "caches", folder / "run")
    moved = (str(compiled_in / "caches"), str(folder / "caches"))
    return Side(label, answer, folders, read_artifacts(folders.triton, moved), None)


@pytest.fixture
def sides(compiled, tmp_path):
    """Gives a function that copies the kernels, lets something be done to the copy, and gives both sides."""
    answer, folder = compiled

    def make(change=lambda there: None) -> tuple[Side, Side]:
        there = tmp_path / "there"
        shutil.copytree(folder, there)
        # What the two sides compiled, they compiled in folders of the same names.
        change(there / "caches")
        return side(answer, folder, "here", folder), side(answer, there, "there", folder)

    return make


def one_file(caches: Path, kernel: str, ending: str) -> Path:
    return next(
        file for file in sorted(caches.rglob(f"*{kernel}*.{ending}")) if not file.name.startswith("__")
    )


def told(one: Side, other: Side) -> list[str]:
    return [str(finding) for finding in kernels.compare_kernels(one, other)]


def test_a_copy_is_the_same(sides):
    one, other = sides()
    assert told(one, other) == []
    assert len(one.artifacts) >= 4
    assert kernels.identical_binaries(one, other) == (len(one.artifacts), len(one.artifacts))
    assert all(re.fullmatch("[0-9a-f]{16}", artifact.source) for artifact in one.artifacts)
    assert all(artifact.source_file.is_relative_to(other.place) for artifact in other.artifacts)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("num_warps", 16, "num_warps is 1 with here and 16 with there"),
        ("shared", 4096, "shared is 0 with here and 4096 with there"),
        ("enable_fp_fusion", False, "enable_fp_fusion is true with here and false with there"),
    ],
)
def test_launch_metadata(sides, name, value, text):
    def change(caches):
        file = one_file(caches, "softmax", "json")
        metadata = json.loads(file.read_text())
        file.write_text(json.dumps({**metadata, name: value}))

    (finding,) = told(*sides(change))
    assert finding.startswith("launch: triton_per_fused__softmax")
    assert text in finding


def test_another_ptx(sides):
    def change(caches):
        file = one_file(caches, "softmax", "ptx")
        file.write_text(file.read_text().replace("mul.f32", "add.f32", 1))

    (finding,) = told(*sides(change))
    assert re.match(
        r"ptx: triton_per_fused__softmax\S*: .*'mul.f32.*' with here, 'add.f32.*' with there", finding
    )


def test_line_information_of_ptx_is_no_difference(sides):
    def change(caches):
        file = one_file(caches, "softmax", "ptx")
        lines = [
            line for line in file.read_text().splitlines() if not line.strip().startswith((".loc", ".file"))
        ]
        file.write_text("\n".join(lines) + "\n// a remark\n")

    assert told(*sides(change)) == []


def test_another_ptxas_is_told_once_for_all(sides):
    def change(caches):
        for file in caches.rglob("*.ptx"):
            file.write_text(re.sub(r"\.version \d\.\d", ".version 9.9", file.read_text()))

    found = told(*sides(change))
    assert len(found) == 1, found
    (finding,) = found
    assert finding.startswith("ptxas: ")
    assert all(part in finding.partition(": compiled")[0] for part in ("softmax", "clone_t", "index_mul"))
    assert "'.version 9.9' with there" in finding
    assert 'environment={"TRITON_PTXAS_PATH"' in finding


def test_another_instruction(sides):
    def change(caches):
        file = one_file(caches, "softmax", "cubin")
        data = bytearray(file.read_bytes())
        code = canonical.read_binary(file).sections
        text = next(value for name, value in code.items() if name.startswith(".text"))
        at = data.index(text) + 16 * 3  # the fourth instruction: another register
        data[at + 2] ^= 1
        file.write_bytes(data)

    (finding,) = told(*sides(change))
    assert finding.startswith("code: triton_per_fused__softmax")
    assert "the first other instruction is number 4" in finding


def test_a_section_that_is_no_code(sides):
    def change(caches):
        file = one_file(caches, "softmax", "cubin")
        data = bytearray(file.read_bytes())
        constant = next(
            value
            for name, value in canonical.read_binary(file).sections.items()
            if name.startswith(".nv.info.")
        )
        at = data.index(constant) + len(constant) - 1
        data[at] ^= 1
        file.write_bytes(data)

    (finding,) = told(*sides(change))
    assert "the binary differs in .nv.info.triton_per_fused__softmax" in finding


def test_debug_sections_are_no_difference(sides):
    def change(caches):
        from elftools.elf.elffile import ELFFile

        for file in caches.rglob("*.cubin"):
            data = bytearray(file.read_bytes())
            with open(file, "rb") as stream:
                section = ELFFile(stream).get_section_by_name(".debug_line")
                data[section["sh_offset"] + section["sh_size"] - 1] ^= 1
            file.write_bytes(data)

    one, other = sides(change)
    assert told(one, other) == []
    assert kernels.identical_binaries(one, other) == (0, len(one.artifacts))


def test_a_missing_kernel_and_a_missing_configuration(sides):
    def change(caches):
        folder = one_file(caches, "softmax", "json").parent
        shutil.rmtree(folder)
        shutil.rmtree(one_file(caches, "index_mul", "json").parent)

    found = told(*sides(change))
    assert len(found) == 2
    assert re.match(
        r"kernel: triton_per_fused__softmax\S*: made with here \(1 conf.* missing with there", found[0]
    )
    assert re.match(
        r"kernel: triton_poi_fused_index_mul_0: the configuration num_warps .* and not with there", found[1]
    )


def test_the_same_code_under_another_hash(sides):
    def change(caches):
        file = one_file(caches, "softmax", "json")
        metadata = json.loads(file.read_text())
        file.write_text(json.dumps({**metadata, "hash": "0" * 64}))
        file.parent.rename(file.parent.with_name("ANOTHER"))

    one, other = sides(change)
    (finding,) = kernels.compare_kernels(one, other)
    assert finding.kind == "hash"
    assert not finding.fails
    assert kernels.identical_binaries(one, other)[0] == len(one.artifacts)


def test_another_text_of_the_same_name(sides):
    def change(caches):
        located = re.search(r'loc\("([^"]+)"', one_file(caches, "softmax", "ttir").read_text())
        source = next(caches.rglob(os.path.basename(located[1])))
        source.write_text(source.read_text().replace("rnumel", "rnumber"))

    found = told(*sides(change))
    assert [finding.partition(":")[0] for finding in found] == ["source"]
    assert "rnumel" in found[0]
    assert "rnumber" in found[0]


def test_where_kernels_are_chosen_by_measurements_another_one_is_no_difference(sides):
    def change(caches):
        shutil.rmtree(one_file(caches, "softmax", "json").parent)

    one, other = sides(change)
    measuring = dataclasses.replace(one.answer, target=None, moved={"inductor.select_algorithm_autotune": 1})
    (finding,) = kernels.compare_kernels(dataclasses.replace(one, answer=measuring), other)
    assert finding.kind == "config"
    assert not finding.fails


def test_a_configuration_that_was_chosen_otherwise(sides):
    def change(caches):
        for place, warps in ((caches, 4), (caches.parent.parent / "mine", 8)):
            folder = place / "inductor" / "zz"
            folder.mkdir(parents=True)
            (folder / "x.best_config").write_text(
                json.dumps({"XBLOCK": 8, "num_warps": warps, "time_taken_ms": warps})
            )
            (folder / "k.py").write_text(
                "@triton_heuristics.pointwise()\n@triton.jit\ndef triton_poi_0(x):\n    pass\n"
            )

    one, other = sides(change)
    mine = dataclasses.replace(
        one, folders=dataclasses.replace(one.folders, inductor=other.place.parent / "mine" / "inductor")
    )
    (finding,) = choices.compare_choices(mine, other)
    assert finding.what == "triton_poi_0"
    assert "{'XBLOCK': 8, 'num_warps': 8} was fastest with here" in finding.text
    assert not finding.fails


# -- bad input: a sentence that names the file -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "this is no readable binary of a kernel"),
        (b"\x7fELF and then nothing", "this is no readable binary of a kernel"),
        (b"not an ELF file at all, and long enough to be one" * 10, "this is no readable binary of a kernel"),
    ],
)
def test_an_unreadable_cubin(sides, data, sentence):
    one, other = sides(lambda caches: one_file(caches, "softmax", "cubin").write_bytes(data))
    with pytest.raises(UnreadableArtifact) as caught:
        kernels.compare_kernels(one, other)
    assert sentence in str(caught.value)
    assert str(one_file(other.place, "softmax", "cubin")) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cubin_that_is_cut_off(sides):
    def change(caches):
        file = one_file(caches, "softmax", "cubin")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(UnreadableArtifact):
        kernels.compare_kernels(*sides(change))


def test_unreadable_metadata(compiled, tmp_path):
    folder = tmp_path / "triton" / "HASH"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"name": ')
    with pytest.raises(
        UnreadableArtifact, match=r"kernel\.json: Triton's metadata of a kernel cannot be read"
    ):
        read_artifacts(tmp_path / "triton")


def test_a_check_says_so_in_one_sentence(compile_parity, offline_here):
    with pytest.raises(ParityError) as caught:
        compile_parity.check(
            torch_programs.run_all,
            (("softmax",),),
            processes=(1, 2),
            repeat=1,
            target="cuda:90",
            compile=False,
            before=break_every_cubin,
        )
    first, *rest = str(caught.value).splitlines()
    assert re.search(r"\.cubin: this is no readable binary of a kernel", first)
    assert rest[0] == "kept, with what was compiled:"


def break_every_cubin():
    """Called in each interpreter: Triton's cache gets something else than what was compiled."""
    from triton.backends.nvidia.compiler import CUDABackend

    if os.environ["TORCHINDUCTOR_COMPILE_THREADS"] != "1":
        return
    CUDABackend.make_cubin = lambda self, src, metadata, *rest: b"broken"


# -- registers, from the binary ----------------------------------------------------------------------------------


def test_registers_and_spills_are_those_that_ptxas_tells(compiled):
    """cuobjdump, which Triton brings along, reads the same file by other means."""
    import subprocess

    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this triton brings no cuobjdump")
    for file in compiled[1].rglob("*.cubin"):
        done = subprocess.run(
            [tool, "-res-usage", file], capture_output=True, text=True, timeout=60, check=True
        )
        usage = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
        binary = canonical.read_binary(file)
        assert (binary.registers, binary.spilled) == (int(usage[1]), int(usage[2]))


# -- the share of workers, from records ----------------------------------------------------------------------------


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
