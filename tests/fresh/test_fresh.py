# SPDX-License-Identifier: Apache-2.0
"""Fresh interpreters: what they start from, what they are told, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import starts
from tiers import further

from pytest_compilepool.fresh import run as fresh_run
from pytest_compilepool.fresh.callables import BadInput
from pytest_compilepool.phases import PhaseFailed

torch = pytest.importorskip("torch", reason="a fresh interpreter imports torch")


def test_it_is_another_process_that_started_from_nothing(compile_phases):
    alone = compile_phases.using(processes=1)
    phase = alone.cold(starts.whoami)
    assert phase.output["pid"] not in (os.getpid(), os.getppid())
    assert phase.output["parent"] == os.getpid()
    # torch 2.8 puts a folder of its own there when it is imported.
    assert [part for part in phase.output["path"] if part in sys.path] == sys.path
    assert phase.output["pid"] == phase.answer.pid
    assert not psutil.pid_exists(phase.answer.pid)
    assert alone.again(starts.whoami).output["pid"] != phase.output["pid"]


def test_the_pool_is_ready_before_the_function_is_called_and_gone_after(compile_phases):
    phase = compile_phases.using(processes=2).cold(starts.uses_the_pool)
    assert phase.output == sorted(phase.workers)
    assert set(phase.output) <= set(phase.answer.workers)
    assert phase.counters["pool.jobs_done"] == 8
    assert phase.counters["aot_autograd.autograd_cache_hit"] == 0
    with pytest.raises(
        KeyError, match=r"there is no counter 'aot_autograd.autograd_cache_hits'.*autograd_cache_hit"
    ):
        phase.counters["aot_autograd.autograd_cache_hits"]
    assert len(phase.jobs) == 8
    assert {job.function for job in phase.jobs} == {"whoami"}
    assert all(job.began >= job.submitted for job in phase.jobs)
    assert all(job.ended >= job.began for job in phase.jobs)
    assert {"import_torch", "warm", "ready", "call", "shutdown"} <= set(phase.seconds)
    assert phase.answer.shutdown == "asked"
    gone = [phase.answer.pid, phase.answer.sidecar, *phase.answer.workers]
    assert not any(psutil.pid_exists(pid) for pid in gone)


def test_what_it_leaves_behind_is_ended(compile_phases, tmp_path):
    phase = compile_phases.using(processes=1).cold(starts.leaves_a_child_behind, str(tmp_path / "pid"))
    assert not psutil.pid_exists(phase.output)


def test_what_had_ended_before_it_is_waited_for(compile_phases):
    """It becomes a child of this process, which the leak check has made a subreaper."""
    phase = compile_phases.using(processes=1).cold(starts.leaves_a_dead_child_behind)
    assert not psutil.pid_exists(phase.output)


def test_its_environment(compile_phases, monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "1")
    phases = compile_phases.using(processes=1, environment={"SET_FOR_IT": "2", "FROM_OUTSIDE": None})
    assert phases.cold(starts.environment, "SET_FOR_IT").output == "2"
    assert phases.again(starts.environment, "FROM_OUTSIDE").output is None
    caches = phases.again(starts.environment, "TORCHINDUCTOR_CACHE_DIR").output
    assert caches != os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    assert Path(caches).is_dir()
    assert "SET_FOR_IT" not in os.environ


def test_two_interpreters_have_sets_in_the_same_order(compile_phases, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    phases = compile_phases.using(processes=1)
    assert phases.cold(starts.environment, "PYTHONHASHSEED").output == "0"
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    assert phases.cold(starts.environment, "PYTHONHASHSEED").output == "5"


def test_a_fork_that_comes_back_says_nothing(compile_phases):
    phase = compile_phases.using(processes=1).cold(starts.forks_and_comes_back)
    assert phase.output == phase.answer.pid


@pytest.mark.parametrize("how", ["exit", *further("error")])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_fork_that_ends_otherwise_says_nothing_and_ends_no_pool(compile_phases, how, processes):
    phase = compile_phases.using(processes=processes, limit=60).cold(starts.forks_and_leaves, how)
    assert phase.output == phase.answer.pid
    assert phase.answer.shutdown == ("asked" if processes > 1 else "")


@pytest.mark.parametrize("who", ["sidecar", *further("workers")])
def test_a_pool_that_breaks_meanwhile_is_told(compile_phases, who):
    with pytest.raises(PhaseFailed, match="its pool was broken when the calls were over: "):
        compile_phases.using(processes=2).cold(starts.kills_the_pool, who)


@pytest.mark.parametrize("how", [*further("quiesce"), "shutdown"])
def test_a_pool_that_the_function_ends_itself_is_not_broken(compile_phases, how):
    assert compile_phases.using(processes=2).cold(starts.ends_the_pool, how).output == how


def test_an_error_without_a_text(compile_phases):
    with pytest.raises(PhaseFailed, match="Unsayable in stage 'call the function'"):
        compile_phases.using(processes=1).cold(starts.raises_what_cannot_be_said)


def test_an_interpreter_whose_parent_is_gone_does_not_begin(tmp_path):
    """It was killed before the kernel was told to take this one along."""
    (tmp_path / "path.json").write_text(json.dumps(sys.path))
    command = [sys.executable, "-c", fresh_run._BOOT, str(tmp_path), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_interpreter_that_does_not_exit_is_ended_and_named(compile_phases, monkeypatch):
    with pytest.raises(PhaseFailed, match="the interpreter did not exit within 10 s after it had answered"):
        compile_phases.using(processes=1).cold(starts.never_exits)


def test_the_answer_of_another_process_is_none(tmp_path):
    from pytest_compilepool.fresh.order import Answer

    (tmp_path / "answer.json").write_text(json.dumps(Answer(pid=5).as_json()))
    assert fresh_run._answer(tmp_path, 5, 0, 1.0).pid == 5
    with pytest.raises(fresh_run.FreshFailed, match="ended with status 0 and no answer"):
        fresh_run._answer(tmp_path, 6, 0, 1.0)


def test_who_is_killed_takes_his_interpreter_along(tmp_path):
    """Nobody else would end it."""
    code = (
        "import sys, starts; from pathlib import Path; from pytest_compilepool.phases import Phases;"
        "Phases(lambda: Path(sys.argv[1])).cold(starts.waits_for_ever, sys.argv[1] + '/pid')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) as parent:
        _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it is at work")
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        assert child.ppid() == parent.pid
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=30)
    assert alive == []


def _until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.01)


def test_caches_that_were_put_elsewhere(compile_phases, tmp_path):
    phases = compile_phases.using(processes=1)
    with pytest.raises(PhaseFailed, match=f"TRITON_CACHE_DIR was moved to {tmp_path}"):
        phases.cold(starts.moves_the_cache, str(tmp_path))
    assert phases.cold(starts.moves_the_cache_within).output == 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            {"TORCHINDUCTOR_CACHE_DIR": "/x"},
            "environment: TORCHINDUCTOR_CACHE_DIR is not allowed; it is set for",
        ),
        (
            {"A=B": "/x"},
            "environment: 'A=B': '/x' is not allowed; allowed: the name of a variable and a text",
        ),
        ({"A": 5}, "environment: 'A': 5 is not allowed"),
        ({"A": "\ud800"}, "environment: 'A': '\\ud800' is not allowed"),
        ({"\ud800": "x"}, "environment: '\\ud800': 'x' is not allowed"),
        (["A"], "environment=['A'] is not allowed; allowed: a dict of texts, or None to unset"),
    ],
)
def test_variables_that_cannot_be_set(compile_phases, value, sentence):
    with pytest.raises(BadInput) as caught:
        compile_phases.using(environment=value)
    assert sentence in str(caught.value)


def test_arguments_and_output(compile_phases):
    x = torch.arange(4.0)
    phase = compile_phases.using(processes=1).cold(starts.give_back, {"x": x}, doubled=True)
    assert torch.equal(phase.output[0]["x"], x)
    assert torch.equal(phase.output[1]["x"], x)


def test_the_answer_survives_json():
    from pytest_compilepool.fresh.order import Answer, Failure
    from pytest_compilepool.records import JobRecord

    answer = Answer(failure=Failure("a", "b", "c", "d"), jobs=[JobRecord(1, "f", "k", "s", 1.0, 2)])
    told = json.loads(json.dumps(answer.as_json()))
    assert Answer.from_json({**told, "of a later release": 1}) == answer
