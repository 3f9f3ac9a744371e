# SPDX-License-Identifier: Apache-2.0
"""Each feature about vLLM can fail: what was recorded of real starts is falsified a little, and its scenario must say so.

`recorded/` has the starts of a run on a CPU machine, by the names that `Starts` keeps them under. Needs neither vLLM nor
torch.
"""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from falsified import LIES
from falsified.gpu import on_a_gpu
from falsified.telling import Runs

from pytest_compilepool.conformance.definition import MANIFEST
from pytest_compilepool.conformance.manifest import read_manifest
from pytest_compilepool.conformance.mutation import scenarios
from pytest_compilepool.suite import PACKAGE, bundled
from pytest_compilepool.suites import vllm_starts
from pytest_compilepool.vllm.engines.order import Run

RECORDED = Path(__file__).parent / "recorded" / "cpu-0.32.0.json"
FEATURES = {one for one in read_manifest(bundled() / MANIFEST) if one.startswith("vllm.")}
WHERE = {one: place for one, place in scenarios(bundled(), PACKAGE).items() if one.startswith("vllm.")}
ON_A_GPU = {"vllm.quiesced-at-captures", "vllm.startup-test-of-a-mixture-of-experts"}


def recorded(identifier: str) -> Runs:
    """The starts that this feature looks at, and others."""
    runs: Runs = json.loads(RECORDED.read_text(encoding="utf-8"))
    return on_a_gpu(runs) if identifier in ON_A_GPU else runs


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Have the scenario of a feature look at these starts, by their names. What it notes."""

    def played(identifier: str, runs: Runs) -> list[str]:
        def of(self: Any, plan: vllm_starts.Plan) -> Run:
            if plan.name not in runs:
                pytest.fail(f"nothing is recorded under the name {plan.name}")
            return Run.from_json(copy.deepcopy(runs[plan.name]))

        monkeypatch.setattr(vllm_starts.Starts, "of", of)
        (tmp_path / "vllm" / "roots" / "default-alone" / "torch_compile_cache").mkdir(parents=True)
        notes: list[str] = []
        told = played.counters = {}
        bench = SimpleNamespace(
            order=SimpleNamespace(shared=str(tmp_path), limit=600.0),
            requirements=SimpleNamespace(vllm_gpu=identifier in ON_A_GPU),
            note=notes.append,
            count=lambda counters: told.update(counters),
        )
        module, function = WHERE[identifier]
        getattr(importlib.import_module(module), function).scenario(bench)
        return notes

    return played


def test_every_feature_is_falsified():
    assert set(LIES) == FEATURES == set(WHERE)
    assert [identifier for identifier, lies in LIES.items() if len(lies) < 2] == []


@pytest.mark.parametrize("identifier", sorted(LIES))
def test_what_was_recorded_conforms(identifier, play):
    assert all("nan" not in note for note in play(identifier, recorded(identifier)))


def test_counters_are_told_to_whoever_compares_releases(play):
    play("vllm.counters-default", recorded("vllm.counters-default"))
    assert play.counters["cold.vllm.num_compiled_artifacts_saved"] == 3
    assert play.counters["warm.vllm.num_compiled_artifacts_loaded"] == 3
    assert "warm.vllm.num_compiled_artifacts_saved" not in play.counters


@pytest.mark.parametrize(
    ("identifier", "says", "tell"),
    [
        pytest.param(identifier, says, tell, id=f"{identifier}-{number}")
        for identifier, lies in sorted(LIES.items())
        for number, (says, tell) in enumerate(lies)
    ],
)
def test_a_start_that_is_falsified_is_noticed(identifier, says, tell, play):
    runs = recorded(identifier)
    tell(runs)
    assert runs != recorded(identifier)
    with pytest.raises(AssertionError) as raised:
        play(identifier, runs)
    assert says in str(raised.value)


def test_nothing_of_the_machine_is_in_the_recording():
    text = RECORDED.read_text(encoding="utf-8")
    for name in ("/tmp/", "/root/", "/home/", "/usr/", "/opt/", "site-packages"):
        assert name not in text


@pytest.fixture
def starts(tmp_path):
    """Those of a run on a CPU machine."""
    bench: Any = SimpleNamespace(
        order=SimpleNamespace(shared=str(tmp_path)), requirements=SimpleNamespace(vllm_gpu=False)
    )
    return vllm_starts.Starts(bench)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (vllm_starts.ENGINE, "max_model_len=5", "'max_model_len=5' is no JSON: "),
        (vllm_starts.ENGINE, "[5]", "'[5]' is no JSON object of arguments of vllm.LLM"),
        (vllm_starts.MODEL, "/nowhere", "'/nowhere' is neither a folder with a config.json nor one of "),
    ],
)
def test_a_variable_that_cannot_be_followed_is_named(starts, monkeypatch, tmp_path, variable, value, says):
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setenv(vllm_starts.MODEL, str(tmp_path))
    monkeypatch.delenv(vllm_starts.ENGINE, raising=False)
    assert starts._filled(vllm_starts.Plan("any", "any")).model == str(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(AssertionError) as raised:
        starts._filled(vllm_starts.Plan("any", "any"))
    assert str(raised.value).startswith(f"{variable}: {says}")


def test_starts_belong_to_a_run():
    bench: Any = SimpleNamespace(order=SimpleNamespace(shared=""))
    with pytest.raises(AssertionError, match="without a folder that is shared by the run"):
        vllm_starts.Starts(bench)


def test_a_start_is_made_once(starts, monkeypatch):
    made: list[str] = []

    def run(order, root, **named):
        made.append(root.name)
        return Run(pid=len(made))

    monkeypatch.setattr(vllm_starts, "run", run)
    monkeypatch.setattr(vllm_starts.Starts, "model", lambda self: Path("model"))
    one, other = vllm_starts.Plan("one", "caches"), vllm_starts.Plan("other", "caches")
    assert [starts.of(plan).pid for plan in (one, other, one, other)] == [1, 2, 1, 2]
    assert made == ["caches", "caches"]
    # Also by another process of the same run, and whole.
    assert vllm_starts.Starts(starts._bench).of(one) == Run(pid=1)
