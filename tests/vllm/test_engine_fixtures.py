# SPDX-License-Identifier: Apache-2.0
"""The fixtures that start vLLM engines: what they refuse, what they set and put back. Needs no vLLM."""

from __future__ import annotations

import os
import shutil
import types
from pathlib import Path

import pytest

from pytest_compilepool import torch_compat, vllm_compat
from pytest_compilepool.vllm import plugin
from pytest_compilepool.vllm.engines import models, phases
from pytest_compilepool.vllm.engines.here import EnginesHere
from pytest_compilepool.vllm.engines.order import Engine, EngineFailed, Run
from pytest_compilepool.vllm.engines.phases import EnginePhases
from pytest_compilepool.vllm.engines.weights import Weights

VLLM_IS = """
from pytest_compilepool import vllm_compat

vllm_compat.vllm_version = lambda: {version!r}
"""


@pytest.mark.parametrize(
    ("version", "why"), [(None, "is not installed"), ("0.99.0", "0.99.0 is none of 0.17 to 0.33")]
)
@pytest.mark.parametrize("how", ["skip", "fail"])
def test_they_say_why_there_is_no_engine(inner, version, why, how):
    result = inner(
        """
        def test_phases(vllm_compile_phases):
            pass

        def test_here(vllm_engine):
            pass

        def test_no_vllm_was_loaded():
            import sys
            assert "vllm" not in sys.modules
        """,
        f"--compilepool-missing={how}",
        "-rs",
        conftest=VLLM_IS.format(version=version),
    )
    result.assert_outcomes(passed=1, **({"skipped": 2} if how == "skip" else {"errors": 2}))
    for name in ("vllm_compile_phases", "vllm_engine"):
        result.stdout.fnmatch_lines([f"*{name}: vLLM {why}*"])


def test_the_cache_is_fresh_and_put_back(inner):
    result = inner(
        """
        import os, sys, types
        from pathlib import Path
        import pytest

        NAMES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
        read, shared, asked = [], [], []

        @pytest.fixture(autouse=True, scope="module")
        def vllm_envs():
            # What vLLM remembers of its variables.
            envs = types.SimpleNamespace(disable_envs_cache=lambda: asked.append(os.environ["VLLM_CACHE_ROOT"]))
            sys.modules["vllm.envs"] = envs
            yield
            del sys.modules["vllm.envs"]

        @pytest.mark.parametrize("number", [1, 2])
        def test_fresh(fresh_vllm_cache, number, tmp_path_factory):
            assert os.environ["VLLM_CACHE_ROOT"] == str(fresh_vllm_cache)
            folders = [os.environ[name] for name in NAMES]
            assert all(Path(folder).is_relative_to(tmp_path_factory.getbasetemp()) for folder in folders)
            assert len({*folders, *read}) == 3 * number
            read.extend(folders)
            assert asked[-1:] == folders[:1]
            kept = fresh_vllm_cache / "modelinfos"
            assert [path for path in fresh_vllm_cache.iterdir()] == [kept]
            assert (kept / "opt.json").exists() == (number == 2)
            (kept / "opt.json").touch()

        def test_put_back():
            assert [os.environ.get(name) for name in NAMES] == ["/outer", None, None]
            assert asked == [read[0], read[0], read[3], read[3]]
        """,
        "--compilepool-leaks=fail",
        environment={"VLLM_CACHE_ROOT": "/outer"},
    )
    result.assert_outcomes(passed=3)


def test_a_pool_as_the_marker_has_it(inner):
    """And what was compiled is gone, unless the test failed."""
    result = inner(
        """
        from pathlib import Path
        import pytest
        from pytest_compilepool.vllm.engines import phases
        from pytest_compilepool.vllm.engines.order import Engine, Run

        orders, roots = [], []

        @pytest.fixture(autouse=True)
        def no_engine(monkeypatch):
            def run(order, root, **named):
                orders.append(order)
                roots.append(root)
                assert named["modelinfos"].is_dir()
                return Run(engines=[Engine()])
            monkeypatch.setattr(phases, "run", run)

        def start(vllm_compile_phases):
            vllm_compile_phases.cold(load_format="dummy")
            return orders[-1]

        @pytest.mark.compilepool(processes=3)
        def test_marked(vllm_compile_phases):
            assert start(vllm_compile_phases).processes == "3"

        def test_option(vllm_compile_phases):
            order = start(vllm_compile_phases)
            assert (order.processes, order.limit) == ("4", 77.0)
            assert start(vllm_compile_phases.using(processes=1)).processes == ""
            assert not roots[0].exists()

        @pytest.mark.compilepool(processes=1)
        def test_none(vllm_compile_phases):
            assert start(vllm_compile_phases).processes == ""
            assert 0

        def test_kept():
            assert not roots[1].exists() and not roots[2].exists()
            assert roots[3].exists()
        """,
        "--compilepool-processes=4",
        "--compilepool-fresh-timeout=77",
        conftest=VLLM_IS.format(version="0.32.0"),
    )
    result.assert_outcomes(passed=3, failed=1)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Phases whose starts are not made. Gives them, and a list of the orders with their roots."""
    made: list[tuple[object, Path]] = []
    folders = iter(tmp_path / f"root{number}" for number in range(9))
    monkeypatch.setattr(
        phases,
        "run",
        lambda order, root, modelinfos: (
            made.append((order, root)) or Run(engines=[] if order.engine.get("fails") else [Engine()])
        ),
    )

    def with_weights(model: Path) -> Path:
        if model.parent == tmp_path:
            return model
        return Path(shutil.copytree(model, tmp_path / model.name, dirs_exist_ok=True))

    weights = types.SimpleNamespace(of=with_weights)
    return EnginePhases(lambda: next(folders), weights, tmp_path / "infos", processes="2"), made


def test_a_warm_start_is_as_the_cold_one(started, tmp_path):
    given, made = started
    given.cold("tiny-llama", processes=3, max_num_seqs=2, seed=1)
    given.warm()
    given.warm("tiny-opt", processes="", seed=2)
    (cold, root), (warm, same_root), (other, still) = made
    assert warm == cold
    assert root == same_root == still
    assert cold.model == str(tmp_path / "tiny-llama")
    assert (cold.processes, cold.engine) == ("3", {"max_num_seqs": 2, "seed": 1})
    assert other.model == str(tmp_path / "tiny-opt")
    assert (other.processes, other.engine) == ("", {"max_num_seqs": 2, "seed": 2})
    given.cold()
    (again, new) = made[-1]
    assert new != root
    assert (again.processes, again.engine) == ("2", {})


def test_a_start_without_an_engine_raises(started):
    given, made = started
    with pytest.raises(EngineFailed, match="no engine was started"):
        given.cold(fails=True)
    # Whoever wants to see what vLLM says asks for it.
    assert given.using(check=False).cold(fails=True).engines == []
    given.cold()
    with pytest.raises(EngineFailed):
        given.warm(fails=True)
    assert len(made) == 4


def test_others_have_caches_of_their_own(started):
    given, made = started
    given.cold(load_format="dummy")
    other = given.using(processes="auto", environment={"VLLM_USE_AOT_COMPILE": "0"}, limit=9)
    with pytest.raises(ValueError, match="call cold"):
        other.warm()
    other.cold()
    (first, root), (second, new) = made
    assert root != new
    assert first.model == str(models.find("tiny-opt"))  # dummies need no weights
    assert (second.processes, second.environment, second.limit) == (
        "auto",
        {"VLLM_USE_AOT_COMPILE": "0"},
        9.0,
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda given: given.warm(),
            "vllm_compile_phases.warm(): there is nothing to be warm from; call cold()",
        ),
        (lambda given: given.cold("huge"), "vllm_compile_phases.cold(): model: 'huge' is neither a folder"),
        (lambda given: given.cold(5), "vllm_compile_phases.cold(): model: '5' is neither a folder"),
        (
            lambda given: given.cold(processes="lots"),
            "vllm_compile_phases.cold(): processes: 'lots' is not a number of compile processes; allowed is auto, a whole",
        ),
        (lambda given: given.cold(processes=True), "processes: True is not a number"),
        (
            lambda given: given.cold(seed={1}),
            "vllm_compile_phases.cold(): arguments of vllm.LLM: Object of type set",
        ),
        (lambda given: given.using(processes=0), "vllm_compile_phases.using(): processes: 0 is not a number"),
        (lambda given: given.using(limit=-1), "vllm_compile_phases.using(): limit=-1 is not allowed"),
        (
            lambda given: given.using(environment="A=1"),
            "vllm_compile_phases.using(): environment='A=1' is not",
        ),
    ],
)
def test_what_phases_refuse(started, call, words):
    given, made = started
    with pytest.raises(ValueError) as caught:
        call(given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert made == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"model": "huge"},
            "vllm_engine(): model: 'huge' is neither a folder with a config.json nor one of ",
        ),
        (
            {"processes": 0},
            "vllm_engine(): processes: 0 is not a number of compile processes; allowed is auto, ",
        ),
    ],
)
def test_what_an_engine_here_refuses(tmp_path, arguments, words):
    before = dict(os.environ)
    with EnginesHere(tmp_path) as engines, pytest.raises(ValueError) as caught:
        engines.make(**arguments)
    assert str(caught.value).startswith(words)
    assert dict(os.environ) == before


def test_weights_are_there_or_it_is_said_why_not(tmp_path):
    has = tmp_path / "has"
    has.mkdir()
    (has / "config.json").write_text("{}")
    (has / "model.safetensors").touch()
    assert Weights(tmp_path / "made", 0.01).of(has) == has
    with pytest.raises(EngineFailed, match=r"were not made within 0\.01 s"):
        Weights(tmp_path / "made", 0.01).of(models.find("tiny-opt"))
    (has / "model.safetensors").unlink()
    with pytest.raises(EngineFailed, match=r"(?s)could not be made \(status 1\):\n.*Error"):
        Weights(tmp_path / "made", 120).of(has)


def test_each_engine_is_given_what_is_asked_for_then(monkeypatch):
    """The hooks on vLLM's classes stay for the life of the process; what is asked for need not."""

    class Wrapper:
        def init_worker(self, all_kwargs):
            pass

        def init_device(self):
            pass

    begun, warned = [], []

    def lifecycle(processes, settings, events, target):
        begun.append((processes, settings.ready_timeout))
        return types.SimpleNamespace(begin=lambda *told: None, end=lambda: None, is_over=lambda: False)

    able = types.SimpleNamespace(torch="2.13.0", quiesce=True, start_methods=("subprocess",))
    config = types.SimpleNamespace(
        model_config=None,
        compilation_config=None,
        parallel_config=types.SimpleNamespace(world_size=1, data_parallel_size_local=1),
    )
    monkeypatch.setattr(plugin, "Lifecycle", lifecycle)
    monkeypatch.setattr(plugin, "_begun", [])
    monkeypatch.setattr(plugin.log, "warning", lambda *told: warned.append(told[-1]))
    monkeypatch.setattr(torch_compat, "capabilities", lambda: able, raising=False)
    monkeypatch.setattr(vllm_compat, "target", lambda: "")
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.32.0")
    monkeypatch.setattr(vllm_compat, "seam_class", lambda: Wrapper)
    monkeypatch.setattr(vllm_compat, "engine_class", lambda: None)
    for number, seconds in (("2", "9"), ("3", "8"), ("1", "7"), ("", "6"), ("nonsense", "5"), ("4", "4")):
        monkeypatch.setenv("VLLM_COMPILE_PROCESSES", number)
        monkeypatch.setenv("VLLM_COMPILE_POOL_READY_TIMEOUT", seconds)
        plugin.register()
        Wrapper().init_worker([{"vllm_config": config}])
    assert begun == [(2, 9.0), (3, 8.0), (4, 4.0)]
    assert len(warned) == 2
    assert all("'nonsense' is not a number" in str(told) for told in warned)
