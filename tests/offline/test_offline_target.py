# SPDX-License-Identifier: Apache-2.0
"""`compile_target`: this process and the pool's workers compile for a GPU that is not there, and nothing stays of it."""

from __future__ import annotations

import ctypes
import importlib.util
import os

import pytest

from pytest_compilepool.targets import TARGETS, BadTarget, parse_target

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("triton") is None:
    pytest.skip("needs torch and triton", allow_module_level=True)

import torch

from pytest_compilepool.parity.offline import NothingIsLaunched
from pytest_compilepool.torch_compat import offline
from pytest_compilepool.torch_compat.offline import OfflineGpu

HOPPER = pytest.mark.compilepool(target="cuda:90", processes=2)
X = torch.ones(64, 128)


@pytest.fixture(autouse=True)
def without_a_gpu(offline_here):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")


def model(x):
    return x.sin() + 1


@HOPPER
def test_the_pools_workers_compile(compile_target, compile_pool):
    output = compile_target.run(torch.compile(model), X)
    assert output.shape == (64, 128)
    assert output.device.type == "cuda"
    torch.manual_seed(0)  # seeds every GPU, too
    (record,) = compile_pool.job_records
    assert record.worker in {key.pid for key in compile_pool.workers}
    assert record.outcome == "done"
    artifact = compile_target.artifacts[0]
    assert artifact.kernel == record.kernel == compile_target.launches[0]
    assert artifact.source == record.source
    assert artifact.metadata["target"] == {"backend": "cuda", "arch": 90, "warp_size": 32}
    assert {"ptx", "cubin"} <= set(artifact.files)
    assert "sm_90" in artifact.files["ptx"].read_text()


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_there_is(name, fresh_compile_caches, single_threaded_compile):
    from pytest_compilepool.parity.offline import offline as stubs

    with stubs(TARGETS[name], fresh_compile_caches.triton) as target:
        target.run(torch.compile(model), X)
        (artifact,) = target.artifacts[:1]
        assert artifact.metadata["target"]["arch"] == TARGETS[name].arch
        assert artifact.binary is not None
        assert artifact.binary.stat().st_size > 500


@HOPPER
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
def test_a_module_goes_along(compile_target, single_threaded_compile):
    module = torch.nn.Sequential(torch.nn.Linear(128, 16), torch.nn.ReLU())
    output = compile_target.run(torch.compile(module), X)
    assert output.shape == (64, 16)
    assert compile_target.launches


@HOPPER
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset:UserWarning")
def test_whoever_wants_to_launch_is_told(compile_target, single_threaded_compile):
    import triton

    from pytest_compilepool.workloads import _triton_source

    sentence = (
        r"kernels are compiled for cuda:90 \(H200\), which is not in this machine; nothing can be launched"
    )
    with pytest.raises(NothingIsLaunched, match=sentence):
        torch.cuda.synchronize()
    with compile_target.tensors():
        x = torch.empty(256, device="cuda")
    with pytest.raises(Exception, match=r"not in this machine|Fake|fake"):
        _triton_source.add[(1,)](x, x, x, 256, BLOCK=256)
    with pytest.raises(NothingIsLaunched, match=sentence):
        triton.runtime.driver.active.utils.load_binary("name", b"", 0, 0)


def fingerprint() -> dict[str, object]:
    """Everything that the stubs touch, as it is now; by identity where it is a function."""
    from torch._dynamo import device_interface
    from torch._inductor import async_compile, scheduler, select_algorithm
    from torch._inductor.fx_passes import joint_graph
    from torch._inductor.runtime import triton_helpers, triton_heuristics
    from triton.runtime.driver import driver

    owners = {
        "torch.cuda": torch.cuda,
        "torch._C": torch._C,
        "torch.version": torch.version,
        "guards": torch._C._dynamo.guards,
        "CudaInterface": device_interface.CudaInterface,
        "async_compile": async_compile,
        "AsyncCompile": async_compile.AsyncCompile,
        "joint_graph": joint_graph,
        "CachingAutotuner": triton_heuristics.CachingAutotuner,
        "triton_helpers": triton_helpers,
        "AlgorithmSelectorCache": select_algorithm.AlgorithmSelectorCache,
        "Scheduler": scheduler.Scheduler,
    }
    found: dict[str, object] = {
        f"{name}.{attribute}": id(value)
        for name, owner in owners.items()
        for attribute, value in vars(owner).items()
        if not attribute.startswith("__")
        and (callable(value) or isinstance(value, (staticmethod, classmethod)))
    }
    library = os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so")
    table = (ctypes.c_void_p * 20).in_dll(ctypes.CDLL(library), offline._GUARDS)
    return found | {
        "guards": list(table),
        "driver": driver._active,
        "version": (torch.version.cuda, torch.version.hip),
        "properties": dict(device_interface.caching_worker_device_properties),
        "devices": dict(device_interface.caching_worker_current_devices),
        "environment": dict(os.environ),
        "available": torch.cuda.is_available(),
    }


@pytest.mark.parametrize("name", ["cuda:90", "hip:gfx942"])
def test_nothing_stays_of_it(name, fresh_compile_caches, single_threaded_compile):
    OfflineGpu(TARGETS[name]).undo()
    gpu = OfflineGpu(TARGETS[name])
    gpu.install()  # so that everything is imported that it imports
    gpu.undo()
    before = fingerprint()
    gpu = OfflineGpu(TARGETS[name])
    gpu.install()
    during = fingerprint()
    with gpu.tensors():
        torch.compile(model)(torch.empty(8, 8, device="cuda"))
    gpu.undo()
    gpu.undo()
    after = fingerprint()
    # Triton's folder and ptxas in the environment are Inductor's doing (torch 2.8 to 2.15).
    for one in (before, after):
        for name in ("TRITON_CACHE_DIR", "TRITON_PTXAS_PATH"):
            one["environment"].pop(name, None)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == set()
    assert len({key for key in during if before.get(key) != during[key]}) > 25
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(1, device="cuda")


def test_after_it_the_cpu_compiles_as_before(fresh_compile_caches, single_threaded_compile):
    gpu = OfflineGpu(TARGETS["cuda:90"])
    gpu.install()
    with gpu.tensors():
        torch.compile(model)(torch.empty(8, 8, device="cuda"))
    gpu.undo()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model)(X), model(X))


def test_a_stub_that_fails_takes_the_others_along(monkeypatch):
    gpu = OfflineGpu(TARGETS["cuda:90"])
    monkeypatch.setattr(gpu, "_examples", lambda *_: 1 / 0)
    before = torch.cuda.is_available
    with pytest.raises(ZeroDivisionError):
        gpu.install()
    assert torch.cuda.is_available is before


def test_a_torch_that_cannot_is_told_so(monkeypatch, compile_parity, inner):
    monkeypatch.setattr(offline, "unsupported", lambda: "planted reason")
    gpu = OfflineGpu(TARGETS["cuda:90"])
    with pytest.raises(offline.OfflineUnsupported, match="target cuda:90: planted reason"):
        gpu.install()
    result = inner(
        """
        import pytest
        @pytest.mark.compilepool(target="cuda:90")
        def test_it(compile_phases):
            pass
        """,
        "-rs",
        conftest="from pytest_compilepool.torch_compat import offline\noffline.unsupported = lambda: 'planted reason'",
    )
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*compile_phases: target cuda:90: planted reason*"])


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["cuda:91", "sm_90", "", None, 90])
def test_a_target_that_there_is_not(value):
    with pytest.raises(BadTarget) as caught:
        parse_target(value, "here")
    assert str(caught.value) == f"here: {value!r} is not allowed; allowed: {', '.join(TARGETS)}"


@pytest.mark.usefixtures("pool_here")
def test_the_fixture_says_what_it_needs(inner):
    result = inner(
        """
        import pytest

        def test_without_a_marker(compile_target):
            pass

        @pytest.mark.compilepool(target="cuda:90")
        def test_with_a_gpu(monkeypatch, request):
            import torch
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Fake")
            request.getfixturevalue("compile_target")

        @pytest.mark.compilepool(target="cuda:90", offline=True)
        def test_with_a_gpu_and_asked(monkeypatch, request):
            import torch
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            assert request.getfixturevalue("compile_target").name == "cuda:90"
        """,
        "-rs",
    )
    result.assert_outcomes(errors=1, skipped=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_without_a_marker: compile_target needs @pytest.mark.compilepool(target=...); there are: cuda:75*",
            "*compile_target: there is a real GPU here (NVIDIA Fake), and its place would be taken by cuda:90; *",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("target='cuda:91'", "target: 'cuda:91' is not allowed; allowed: cuda:75"),
        ("offline=1", "offline=1 is not allowed; allowed: True, False"),
    ],
)
def test_a_marker_with_wrong_arguments_ends_the_run(inner, arguments, sentence):
    result = inner(f"import pytest\n@pytest.mark.compilepool({arguments})\ndef test_it():\n    pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"test_inner.py::test_it: @pytest.mark.compilepool: {sentence}" in "\n".join(
        result.errlines + result.outlines
    )


def test_a_pool_that_torch_starts_by_itself_is_no_leak(inner, offline_here):
    result = inner(
        """
        import pytest
        from pytest_compilepool.workloads import torch_programs

        @pytest.mark.compilepool(target="cuda:90")
        def test_alone(compile_target):
            import torch
            import torch._inductor.config
            from pytest_compilepool.torch_compat import live_pools

            torch._inductor.config.compile_threads = 2
            compile_target.run(torch.compile(torch.softmax), torch.ones(64, 128), -1)
            assert live_pools() != []

        def test_after():
            from pytest_compilepool.torch_compat import live_pools
            assert live_pools() == []
        """,
        "-p",
        "no:randomly",
        "--compilepool-leaks=fail",
        environment={"TORCHINDUCTOR_COMPILE_THREADS": "2"},
    )
    result.assert_outcomes(passed=2)
    assert "pools: compile" not in result.stdout.str()
