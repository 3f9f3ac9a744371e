# SPDX-License-Identifier: Apache-2.0
"""Real Triton compiles without a GPU: here and in a real worker, to the same PTX."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool.workloads import jobs, triton_kernels
from pytest_compilepool.workloads.triton_kernels import H200, KERNELS, compile_kernel

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="a Triton compile needs triton, which is not installed here",
)


@needs_triton
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_compiles(call: Any, kernel: str, tmp_path: Path) -> None:
    made = call(compile_kernel, kernel, H200, str(tmp_path))
    assert made["kernel"] == kernel
    assert made["target"] == H200
    assert made["binary_kind"] == "cubin"
    assert made["binary_bytes"] > 1000
    assert len(made["ptx_sha256"]) == 64
    assert made["num_warps"] == 4
    assert made["seconds"] > 0
    assert not made["cached"]
    # A matrix product goes through shared memory, an addition does not.
    assert (made["shared"] > 0) == (kernel != "add")
    assert list(tmp_path.rglob("*.cubin"))


@needs_triton
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernel_is_the_one_that_was_named(kernel: str) -> None:
    from pytest_compilepool.workloads import _triton_source

    recipe = _triton_source.recipe(kernel)
    assert recipe.kernel.__name__ == kernel
    assert list(recipe.signature) == recipe.kernel.arg_names


@needs_triton
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_worker_makes_the_same_as_this_process(
    worker: Any, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = ["hash", "ptx_sha256", "binary_kind", "num_warps", "shared"]
    # A sidecar looks for a ptxas in torch's wheel and hands it to its workers; this process has not. Another
    # ptxas is another PTX version, and the variable itself is in Triton's hash: that is no defect of either.
    ptxas = worker.call(jobs.environment, ["TRITON_PTXAS_PATH"])["TRITON_PTXAS_PATH"]
    if ptxas != os.environ.get("TRITON_PTXAS_PATH"):
        monkeypatch.setenv("TRITON_PTXAS_PATH", ptxas)
        same.remove("hash")
    here = compile_kernel(kernel, H200, str(tmp_path / "here"))
    there = worker.call(compile_kernel, kernel, H200, str(tmp_path / "there"))
    assert here["pid"] == os.getpid()
    assert there["pid"] not in (os.getpid(), worker.parent)
    assert {name: here[name] for name in same} == {name: there[name] for name in same}


@needs_triton
def test_the_second_time_it_comes_from_the_cache(call: Any, tmp_path: Path) -> None:
    first, second = (call(compile_kernel, "add", H200, str(tmp_path)) for _ in range(2))
    assert [first["cached"], second["cached"]] == [False, True]
    assert first["ptx_sha256"] == second["ptx_sha256"]


@needs_triton
def test_other_options_and_targets_make_other_kernels(tmp_path: Path) -> None:
    made = [
        compile_kernel("softmax", H200, str(tmp_path)),
        compile_kernel("softmax", H200, str(tmp_path), 8),
        compile_kernel("softmax", ("cuda", 80, 32), str(tmp_path)),
        compile_kernel("layer_norm", H200, str(tmp_path)),
    ]
    assert len({one["hash"] for one in made}) == 4
    assert len({one["ptx_sha256"] for one in made}) == 4
    assert [one["num_warps"] for one in made] == [4, 8, 4, 4]


@needs_triton
def test_an_amd_target_has_no_ptx(tmp_path: Path) -> None:
    try:
        made = compile_kernel("add", ("hip", "gfx942", 64), str(tmp_path))
    except Exception as error:
        if "ROCm linker" not in str(error):
            raise
        pytest.skip(f"this triton brings no linker for AMD: {error}")
    assert made["binary_kind"] == "hsaco"
    assert made["ptx_sha256"] is None


@needs_triton
def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import knobs

    heard = knobs.compilation.listener
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    compile_kernel("add", H200, str(tmp_path / "a"))
    assert "TRITON_CACHE_DIR" not in os.environ
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "b"))
    compile_kernel("add", H200, str(tmp_path / "a"))
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    compile_kernel("add")
    assert (tmp_path / "b").exists()
    assert knobs.compilation.listener is heard


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown kernel 'conv' .*: allowed are add, softmax, layer_norm"):
        compile_kernel("conv")


@pytest.mark.parametrize("target", [("cuda", 90), ("cuda", None, 32), (90, "cuda", 32), ()])
def test_a_target_of_another_form_is_refused(target: Any) -> None:
    with pytest.raises(ValueError, match=r"target .* given to compile_kernel: it is \(backend, architecture"):
        compile_kernel("add", target)


def test_a_machine_without_triton_is_told_so(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "from pytest_compilepool.workloads import triton_kernels as kernels\n"
        "assert not kernels.available()\n"
        "try: kernels.compile_kernel('add')\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "compile_kernel needs triton, which is not installed here", done.stderr


def test_available_agrees_with_what_is_installed() -> None:
    assert triton_kernels.available() == (importlib.util.find_spec("triton") is not None)
