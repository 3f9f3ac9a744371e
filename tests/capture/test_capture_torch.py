# SPDX-License-Identifier: Apache-2.0
"""torch's own graph classes: imported later, not imported at all, and as they were afterwards. No GPU."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from pytest_compilepool.capture import CaptureGuard


def functions_of(owner: type) -> list[object]:
    return [vars(owner).get(name) for name in ("capture_begin", "capture_end")]


BEFORE_TORCH = """
import pathlib, sys
from pytest_compilepool.capture import CaptureGuard

path, finders = list(sys.path), list(sys.meta_path)
folder = pathlib.Path("torch/cuda")
folder.mkdir(parents=True)
pathlib.Path("torch/__init__.py").touch()
(folder / "__init__.py").touch()
(folder / "graphs.py").write_text(
    "class CUDAGraph:\\n    def capture_begin(self): pass\\n    def capture_end(self): pass\\n"
)
sys.path.insert(0, ".")
with CaptureGuard() as outer, CaptureGuard() as inner:
    assert "torch" not in sys.modules
    from torch.cuda.graphs import CUDAGraph
    assert "torch.accelerator.graphs" not in sys.modules
    assert hasattr(CUDAGraph.capture_begin, "__wrapped__")
    CUDAGraph().capture_begin()
    assert [len(outer.captures), len(inner.captures)] == [1, 1]
assert not hasattr(CUDAGraph.capture_begin, "__wrapped__")
assert sys.meta_path == finders
del sys.modules["torch.cuda.graphs"]
with CaptureGuard() as guard:
    pass
from torch.cuda.graphs import CUDAGraph
assert not hasattr(CUDAGraph.capture_begin, "__wrapped__")
"""


def test_torch_may_be_imported_later(tmp_path):
    """A torch of three files, so that there is none before; two guards wait for it at once."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_TORCH],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_any_pool_it_passes_and_imports_nothing(tmp_path):
    script = """
import sys
from pytest_compilepool.capture import CaptureGuard
class Graph:
    def capture_begin(self): pass
    def capture_end(self): pass
with CaptureGuard() as guard:
    guard.watch(Graph)
    Graph().capture_begin()
guard.assert_quiesced()
assert "this process had no pool" in guard.describe()
print(sorted({"torch", "psutil", "triton", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_torch_own_classes_are_as_they_were():
    """Census: every class that torch has for graphs, before and after."""
    torch = pytest.importorskip("torch")
    names = [("cuda", "CUDAGraph"), ("xpu", "XPUGraph"), ("accelerator", "Graph")]
    classes = [getattr(getattr(torch, room, None), name, None) for room, name in names]
    classes = [graph for graph in classes if hasattr(graph, "capture_begin")]
    before = [functions_of(graph) for graph in classes]
    with CaptureGuard():
        assert all(hasattr(graph.capture_begin, "__wrapped__") for graph in classes)
        assert all(hasattr(graph.capture_end, "__wrapped__") for graph in classes)
    for graph, kept in zip(classes, before, strict=True):
        assert all(now is then for now, then in zip(functions_of(graph), kept, strict=True))
    assert torch.cuda.CUDAGraph in classes


def test_torch_own_context_manager_is_heard(monkeypatch):
    """`torch.cuda.graph` and `CUDAGraph` as they are, over a GPU that is not there."""
    torch = pytest.importorskip("torch")
    if torch.backends.cuda.is_built():
        pytest.skip("this torch was built with CUDA: its graphs cannot be made without a GPU")
    told = []
    base = torch.cuda.CUDAGraph.__mro__[1]
    monkeypatch.setattr(base, "capture_begin", lambda self, **options: told.append(options), raising=False)
    monkeypatch.setattr(base, "capture_end", lambda self: told.append("end"), raising=False)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    graph = object.__new__(torch.cuda.CUDAGraph)
    graph._tracker = None
    with CaptureGuard() as guard, torch.cuda.graph(graph, stream="a stream", capture_error_mode="relaxed"):
        assert guard.captures[0].under_way
    (record,) = guard.captures
    assert record.ended is not None
    assert record.where.endswith(" in test_torch_own_context_manager_is_heard")
    assert record.functions[-1] == "__enter__"
    assert told == [{"pool": None, "capture_error_mode": "relaxed"}, "end"]
