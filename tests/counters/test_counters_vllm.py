# SPDX-License-Identifier: Apache-2.0
"""vLLM's counters, with a stand-in for the module that has them: vLLM itself is never imported."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from pytest_compilepool import vllm_compat

# As vllm/compilation/counter.py is written, 0.17 to 0.33.
SOURCE = """
import dataclasses

@dataclasses.dataclass
class CompilationCounter:
    num_models_seen: int = 0
    # not from the cache
    num_compiled_artifacts_saved: int = 0
    num_compiled_artifacts_loaded: int = 0
    stock_torch_compile_count: int = 0

compilation_counter = CompilationCounter()
"""


@pytest.fixture
def stand_in(pytester):
    """A package `vllm` that can be imported from the folder of the inner session."""
    folder = pytester.mkpydir("vllm")
    (folder / "__init__.py").write_text("raise ImportError('nobody was to import this')")
    (folder / "compilation").mkdir()
    (folder / "compilation" / "counter.py").write_text(SOURCE)
    return folder


LOADED = """
import importlib.util, pathlib, sys, types
import pytest

@pytest.fixture
def counter():
    "vLLM's module, loaded as vLLM would have loaded it."
    sys.modules["vllm"] = types.ModuleType("vllm")
    file = pathlib.Path("vllm/compilation/counter.py").resolve()
    spec = importlib.util.spec_from_file_location("vllm.compilation.counter", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["vllm.compilation.counter"] = module
    spec.loader.exec_module(module)
    return module.compilation_counter
"""


def test_read_where_vllm_is_loaded(inner, stand_in):
    result = inner(
        """
        import sys

        def test_installed_only(compile_counters):
            with compile_counters.expect({"vllm.num_compiled_artifacts_saved": 0}):
                pass
            assert not [name for name in sys.modules if name.partition(".")[0] == "vllm"]

        def test_loaded(compile_counters, counter):
            counter.num_models_seen += 1
            with compile_counters.expect(
                {"vllm.num_compiled_artifacts_saved": 3, "vllm.num_compiled_artifacts_loaded": 0}, exact=True
            ):
                counter.num_compiled_artifacts_saved += 3
            assert compile_counters.read()["vllm.num_models_seen"] == 1

        def test_wrong(compile_counters, counter):
            # pytorch#180912: better, and yet it blocked a release
            with compile_counters.expect({"vllm.num_compiled_artifacts_saved": 4}):
                counter.num_compiled_artifacts_loaded += 4

        def test_unknown(compile_counters, counter):
            with compile_counters.expect({"vllm.num_artifacts_saved": 4}):
                pass
        """,
        "-p",
        "no:randomly",
        conftest=LOADED,
        environment={"PYTHONPATH": str(stand_in.parent)},
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "E*vllm.num_compiled_artifacts_saved *4 *0 *0 *0 *better",
            "E*there is no counter 'vllm.num_artifacts_saved'; the nearest are: vllm.num_compiled_artifacts_saved*",
        ]
    )


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm(counters):
    from pytest_compilepool.counters import UnknownCounter

    assert vllm_compat.vllm_version() is None
    assert not vllm_compat.vllm_installed()
    with pytest.raises(UnknownCounter, match=r"'vllm\.num_models_seen' \(vLLM is not installed\)"):
        counters.expect({"vllm.num_models_seen": 0})


def test_its_version(monkeypatch):
    import types

    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    sys.modules["vllm"].__version__ = "0.32.0+cpu"
    assert vllm_compat.vllm_version() == "0.32.0+cpu"
