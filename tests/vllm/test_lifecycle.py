# SPDX-License-Identifier: Apache-2.0
"""The pool in a worker, from init_device to shutdown: real pools and real kernels, a stand-in for vLLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiers import further

from pytest_compilepool.vllm.events import read_events

TWO = {"VLLM_COMPILE_PROCESSES": "2"}
COMPILES = {"profile_run": ["pointwise", "softmax"]}


def phase(said: dict[str, Any], name: str) -> dict[str, Any]:
    """What was seen when a phase began."""
    return next(seen for seen in said["seen"] if seen["phase"] == name)


def whats(said: dict[str, Any]) -> list[str]:
    return [event["what"] for event in said["events"]]


def event(said: dict[str, Any], what: str) -> dict[str, Any]:
    return next(event for event in said["events"] if event["what"] == what)


def test_the_whole_life(start, tmp_path):
    log = tmp_path / "events.jsonl"
    said = start({**TWO, "VLLM_COMPILE_POOL_EVENTS": str(log)}, compiles=COMPILES)
    assert said["errors"] == []
    assert said["returned"] == ["done", 7, 1.5]
    assert " ".join(whats(said)) == (
        "warm attached loaded ready quiesce capture captured capture captured warmed-up shutdown"
    )
    # Started before the device is: its imports are behind it when the first kernel comes.
    assert event(said, "warm")["detail"]["sidecar"] in phase(said, "init_device")["tree"]
    assert said["launched"]
    assert said["kernels"] == {"pool": len(said["launched"])}
    done = {job["kernel"]: job["worker"] for job in said["jobs"] if job["outcome"] == "done"}
    assert set(said["launched"]) <= set(done)
    assert set(done.values()) <= set(event(said, "ready")["detail"]["workers"])
    # Nobody but the sidecar while graphs are captured, and while the engine serves.
    for name in ("profile_cudagraph_memory", "capture_model", "serving"):
        assert phase(said, name)["tree"] == [event(said, "warm")["detail"]["sidecar"]], name
    assert said["left"] == []
    assert said["threads"] == 1
    assert said["torch as it was"]
    assert [one.what for one in read_events(str(log))] == whats(said)


def test_a_compile_after_a_capture_wakes_the_pool_again(start):
    said = start(TWO, compiles={**COMPILES, "compile_sizes": ["cumulative_sum"]})
    assert said["errors"] == []
    assert set(said["kernels"]) == {"pool"}
    assert whats(said).count("quiesce") == 2
    assert len(phase(said, "capture_model")["tree"]) == 1


@pytest.mark.thorough
def test_the_workers_that_a_request_woke_go_again(start):
    said = start(TWO, compiles={**COMPILES, "serving": ["cumulative_sum", "layer_norm"]})
    assert said["errors"] == []
    assert set(said["kernels"]) == {"pool"}
    assert whats(said)[-4:] == ["warmed-up", "quiesce", "quiesce", "shutdown"]
    assert len(phase(said, "shutdown")["tree"]) == 1


@pytest.mark.parametrize(("where", "times"), [*further(("compile_sizes", 1)), ("serving", 0)])
def test_a_request_without_a_kernel_wakes_no_worker(start, where, times):
    said = start(TWO, compiles=COMPILES, faults={where: "begin_a_compile"})
    assert said["errors"] == []
    assert said["asked"] == times


def test_no_worker_is_forked_during_a_capture(start):
    said = start(TWO, compiles={**COMPILES, "capture_model": ["cumulative_sum"]})
    assert said["errors"] == []
    assert said["kernels"]["process"] >= 1
    captured = [event for event in said["events"] if event["what"] == "captured"]
    assert [event["detail"]["workers"] for event in captured] == [0, 0]
    assert len(phase(said, "serving")["tree"]) == 1


def test_a_warm_start_starts_nothing(start):
    cold = start(TWO, compiles=COMPILES, saves=1)
    assert cold["kernels"] == {"pool": len(cold["launched"])}
    # What vLLM loads is in none of torch's caches: nothing is asked for.
    warm = start(TWO)
    assert "deferred" in whats(warm)
    assert "warm" not in whats(warm)
    assert all(seen["tree"] == [] for seen in warm["seen"])
    assert warm["torch as it was"]


@pytest.mark.thorough
def test_kernels_in_a_bundle_want_no_pool(start):
    """What torch's own cache has, as where vLLM loads each graph from it, is not waited for."""
    cold = start(TWO, compiles=COMPILES, saves=1)
    warm = start(TWO, compiles=COMPILES, saves=1)
    assert warm["launched"] == cold["launched"]
    assert set(warm["kernels"]) == {"cache"}
    assert "warm" not in whats(warm)


def test_a_start_that_compiles_against_expectation_has_its_pool_late(start):
    start(TWO, compiles=COMPILES, saves=1)
    said = start(TWO, compiles={"profile_run": ["pointwise", "cumulative_sum", "layer_norm"]})
    assert said["errors"] == []
    assert event(said, "warm")["detail"]["when"] == "at the first kernel"
    # Nobody waits for it meanwhile.
    assert said["kernels"].get("process", 0) >= 1
    assert "ready" not in whats(said)
    # It saved nothing: the next one begins early again.
    assert "deferred" not in whats(start(TWO))


@pytest.mark.thorough
def test_another_configuration_is_not_deferred(start):
    start(TWO, compiles=COMPILES, saves=1)
    assert "deferred" not in whats(start(TWO, config={"hash": "another"}))
    assert "deferred" in whats(start(TWO))


@pytest.mark.thorough
def test_artifacts_that_were_removed_are_not_expected(start, tmp_path):
    start(TWO, compiles=COMPILES, saves=1)
    shutil.rmtree(tmp_path / "vllm" / "torch_compile_cache")
    assert "deferred" not in whats(start(TWO))


def test_its_workers_are_primed(start):
    said = start(TWO, faults={"profile_run": "ask_a_worker"})
    outcome, pid = said["asked"]
    assert outcome.startswith("primed for cuda:90:32 in ")
    assert pid != event(said, "warm")["detail"]["sidecar"]


def test_a_pool_that_nobody_used_is_ended_before_the_capture(start):
    said = start(TWO)
    assert event(said, "shutdown")["detail"]["reason"] == "no kernel was compiled"
    assert phase(said, "profile_cudagraph_memory")["tree"] == []


@pytest.mark.thorough
def test_two_workers_one_after_the_other(start):
    said = start(TWO, compiles=COMPILES, starts=2)
    assert said["errors"] == []
    assert said["returned"] == ["done", 7, 1.5] * 2
    assert len(said["launched"]) >= 2
    # The second one's kernels are in the process already.
    assert "shutdown" in whats(said)
    assert said["left"] == []
    assert said["torch as it was"]


@pytest.mark.parametrize("phase", [*further("load_model"), "profile_run"])
@pytest.mark.parametrize("fault", ["kill_sidecar", "take_memory"])
def test_a_pool_that_fails_before_the_first_kernel(start, fault, phase):
    said = start({**TWO, "VLLM_COMPILE_POOL_READY_TIMEOUT": "20"}, compiles=COMPILES, faults={phase: fault})
    _fell_back(said)
    assert "pool" not in said["kernels"]


@pytest.mark.parametrize("fault", ["kill_sidecar_with_a_job", *further("stop_workers")])
def test_a_pool_that_owes_a_kernel(start, fault):
    said = start(
        {**TWO, "VLLM_COMPILE_POOL_JOB_TIMEOUT": "10"}, compiles=COMPILES, faults={"profile_run": fault}
    )
    _fell_back(said)
    assert said["kernels"]["rescued"] >= 1


@pytest.mark.thorough
def test_a_sidecar_that_dies_between_two_compiles(start):
    said = start(
        TWO,
        compiles={**COMPILES, "compile_sizes": ["cumulative_sum"]},
        faults={"compile_sizes": "kill_sidecar"},
    )
    _fell_back(said)
    assert said["kernels"]["pool"] >= 1
    assert said["kernels"]["process"] >= 1


def _fell_back(said: dict[str, Any]) -> None:
    """The engine has started, single-threaded, with one warning; nothing is left."""
    assert said["errors"] == []
    assert said["launched"]
    assert said["returned"] == ["done", 7, 1.5]
    assert whats(said).count("fallback") == 1
    warnings = [text for text in said["messages"] if text.startswith("WARNING")]
    assert len(warnings) == 1, warnings
    assert event(said, "fallback")["detail"]["reason"] in warnings[0]
    assert phase(said, "capture_model")["tree"] == []
    assert said["left"] == []
    assert said["threads"] == 1


def test_a_kernel_that_does_not_compile_fails_as_without_a_pool(start):
    alone = start({}, compiles={"profile_run": ["broken_kernel"]})
    said = start(TWO, compiles={"profile_run": ["broken_kernel"], "compile_sizes": ["pointwise"]})
    assert len(said["errors"]) == len(alone["errors"]) == 1
    assert said["errors"][0].split(":")[0] == alone["errors"][0].split(":")[0]
    # The kernel's fault, not the pool's.
    assert "fallback" not in whats(said)
    assert said["kernels"]["pool"] >= 1


@pytest.mark.parametrize(
    ("variables", "config"),
    [({}, {}), *further(({"VLLM_COMPILE_PROCESSES": "1"}, {}), ({"VLLM_COMPILE_PROCESSES": " "}, {}))],
)
def test_without_a_number_vllm_is_as_it_was(start, variables, config):
    said = start(variables, compiles=COMPILES, config=config)
    assert said["vllm as it was"]
    assert said["torch as it was"]
    assert said["kernels"] is None
    assert said["attributes"] == ["does", "model_runner"]
    assert all(seen["tree"] == [] for seen in said["seen"])
    assert [text for text in said["messages"] if "pool" in text] == []


@pytest.mark.parametrize("config", [{"enforce_eager": True}, *further({"mode": 0})])
def test_nothing_for_an_engine_that_compiles_nothing(start, config):
    said = start(TWO, config=config)
    assert said["kernels"] is None
    assert said["torch as it was"]
    assert all(seen["tree"] == [] for seen in said["seen"])


@pytest.mark.parametrize("text", ["lots", *further("0", "9999", "-1", "2.5")])
def test_a_number_that_is_none(start, text):
    said = start({"VLLM_COMPILE_PROCESSES": text}, compiles=COMPILES)
    (message,) = [text for text in said["messages"] if "pool" in text]
    assert message.startswith(f"WARNING: no compile pool: VLLM_COMPILE_PROCESSES: {text!r} is not")
    assert "allowed is auto, or a whole number from 1 to 1024" in message
    assert said["kernels"] is None
    assert said["vllm as it was"]


def test_an_unknown_vllm_is_left_alone(start):
    said = start({**TWO, "STAND_IN_VERSION": "0.99.0"}, compiles=COMPILES)
    (message,) = [text for text in said["messages"] if text.startswith("WARNING")]
    assert "vLLM 0.99.0 is none of 0.17 to 0.33" in message
    assert said["vllm as it was"]


@pytest.mark.thorough
def test_events_that_cannot_be_written(start, tmp_path):
    log = tmp_path / "no" / "such" / "folder.jsonl"
    said = start({**TWO, "VLLM_COMPILE_POOL_EVENTS": str(log)}, compiles=COMPILES)
    assert said["kernels"] == {"pool": len(said["launched"])}
    (message,) = [text for text in said["messages"] if text.startswith("WARNING")]
    assert str(log) in message


def test_a_worker_that_is_killed_leaves_nothing(start, tmp_path):
    """Its end is nobody's call: `end` is false, and the interpreter goes as it will."""
    log = tmp_path / "events.jsonl"
    start({**TWO, "VLLM_COMPILE_POOL_EVENTS": str(log)}, compiles=COMPILES, end=False)
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    assert lines[-1]["what"] == "warmed-up"
