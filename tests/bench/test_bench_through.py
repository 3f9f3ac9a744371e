# SPDX-License-Identifier: Apache-2.0
"""That a kernel went through the pool is only said of one that a process with a worker's pid has compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_compilepool.bench import compile
from pytest_compilepool.bench.starts import Start, StartFailed, hermetic
from pytest_compilepool.fresh.order import Answer
from pytest_compilepool.fresh.run import Folders
from pytest_compilepool.parity.artifacts import Artifact
from pytest_compilepool.records import JobRecord

PARENT, WORKER, OTHER = 100, 200, 300
FOLDERS = Folders(*[Path("nowhere")] * 4)


def job(number: int, worker: int | None, outcome: str = "done", source: str = "") -> JobRecord:
    return JobRecord(number, "compile_kernel", f"triton_{number}", source, 1.0, worker, 1.5, 2.0, outcome)


def start(jobs: list[JobRecord], pids: list[int], processes: int = 2, cached: bool = False) -> Start:
    kernels = [{"kernel": "k", "seconds": 0.1, "pid": pid, "cached": cached} for pid in pids]
    return Start(
        Answer(pid=PARENT, processes=processes, jobs=jobs),
        {"total": 1.0, "kernels": kernels},
        FOLDERS,
    )


def through(found: Start) -> float:
    figures, _ = compile.of_kernels(found)
    return figures["through"]


def test_jobs_and_kernels_must_name_the_same_processes():
    assert through(start([job(1, WORKER), job(2, OTHER)], [WORKER, OTHER])) == 2
    assert through(start([job(1, WORKER), job(2, WORKER)], [WORKER, OTHER])) == 1
    assert through(start([], [WORKER, OTHER])) == 0


@pytest.mark.parametrize(
    "wrong", [job(2, None), job(2, PARENT), job(2, OTHER, "failed"), job(2, OTHER, "pending")]
)
def test_a_job_that_no_worker_has_done_is_none(wrong):
    pids = [WORKER, OTHER if wrong.worker is None else wrong.worker]
    figures, _ = compile.of_kernels(start([job(1, WORKER), wrong], pids))
    assert figures["through"] == 1
    with pytest.raises(StartFailed, match="1 of 2 kernels went through the pool"):
        compile.check_through(figures)


def test_one_process_never_has_any():
    assert through(start([], [PARENT, PARENT], processes=1)) == 0


def test_a_kernel_from_a_cache_is_no_compile():
    with pytest.raises(StartFailed, match="2 kernels of a cold run came from a cache"):
        compile.of_kernels(start([job(1, WORKER), job(2, WORKER)], [WORKER, WORKER], cached=True))


def test_without_a_kernel_nothing_is_said_about_a_pool():
    with pytest.raises(StartFailed, match="no Triton kernel was compiled"):
        compile.check_through({"kernels": 0.0, "through": 0.0})


@pytest.mark.parametrize("worker", [None, PARENT, WORKER])
def test_a_model_is_told_by_its_jobs_too(monkeypatch, worker):
    sources = {"s1": "triton_1", "s2": "triton_2"}
    made = [Artifact(name, key, key, {}, {}) for key, name in sources.items()]
    monkeypatch.setattr(compile, "read_artifacts", lambda folder: made)
    told = {"total": 5.0, "clock": {"triton": 0.1, "wait": 1.0, "kernels": 2.0}, "each": [], "phases": {}}
    jobs = [job(1, WORKER, source="s1"), job(2, worker, source="s2")]
    found = replace(start(jobs, []), told=told)
    figures, detail = compile.of_model(found)
    assert figures["kernels"] == 2
    assert figures["through"] == (2 if worker == WORKER else 1)
    assert figures["workers"] == 1
    assert [one["seconds"] for one in detail["kernels"]] == [0.5, 0.5]


def test_settings_of_whoever_asks_are_not_handed_on():
    asked = {
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "TRITON_ALWAYS_COMPILE": "1",
        "TRITON_PTXAS_PATH": "/tools/ptxas",
        "TORCHINDUCTOR_CACHE_DIR": "/mine",
        "PATH": "/bin",
    }
    assert hermetic(asked) == {"TORCHINDUCTOR_MAX_AUTOTUNE": None, "TRITON_ALWAYS_COMPILE": None}
