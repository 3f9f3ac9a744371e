# SPDX-License-Identifier: Apache-2.0
"""Comparing what lies in two cache folders: real kernels, and what is done to a copy of them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from pytest_compilepool.parity import canonical, choices, kernels
from pytest_compilepool.parity.artifacts import UnreadableArtifact, read_artifacts
from pytest_compilepool.parity.check import ParityError
from pytest_compilepool.parity.findings import Side
from pytest_compilepool.workloads import torch_programs


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
