# SPDX-License-Identifier: Apache-2.0
"""The formula, who overrules whom, and that every word is recorded."""

from __future__ import annotations

import itertools
import json

import pytest

from pytest_compilepool.pool.policy import (
    CPU_COST,
    FIXTURE,
    FLAG,
    GPU_COST,
    INI,
    MARKER,
    MAX_PROCESSES,
    START_VARIABLE,
    THREADS_VARIABLE,
    VLLM_VARIABLE,
    parse_processes,
)
from pytest_compilepool.resources import Cpus, Gpus, Memory

GIB = 1 << 30


def machine(cpus: int, gpus: int = 0) -> dict[str, object]:
    return {"cpus": Cpus(cpus, cpus, None, "affinity"), "gpus": Gpus(gpus, "/dev/nvidia*")}


def available(amount: int) -> Memory:
    return Memory(1 << 42, (1 << 42) - amount, amount, "cgroup memory limit in /x")


@pytest.mark.parametrize(
    ("cpus", "gpus", "processes", "why"),
    [
        (16, 1, 8, "min(8, 16 cpus // 1 gpu - 1)"),
        (16, 0, 8, "min(8, 16 cpus - 1)"),
        (16, 8, 1, "min(8, 16 cpus // 8 gpus - 1)"),
        (16, 4, 3, "min(8, 16 cpus // 4 gpus - 1)"),
        (9, 1, 8, "min(8, 9 cpus // 1 gpu - 1)"),
        (8, 1, 7, "min(8, 8 cpus // 1 gpu - 1)"),
        (7, 2, 2, "min(8, 7 cpus // 2 gpus - 1)"),
        (2, 1, 1, "min(8, 2 cpus // 1 gpu - 1)"),
        (1, 0, 1, "min(8, 1 cpu - 1)"),
        (2, 8, 1, "min(8, 2 cpus // 8 gpus - 1)"),
        (384, 8, 8, "min(8, 384 cpus // 8 gpus - 1)"),
    ],
)
def test_formula(decide, cpus: int, gpus: int, processes: int, why: str) -> None:
    decision = decide(**machine(cpus, gpus))
    assert (decision.processes, decision.why, decision.safe) == (processes, why, True)


# Each of these overrules those before it.
ORDER = [
    (THREADS_VARIABLE, 3),
    (VLLM_VARIABLE, 4),
    (INI, 5),
    (FLAG, 6),
    (MARKER, 7),
]
WHY = {
    THREADS_VARIABLE: "TORCHINDUCTOR_COMPILE_THREADS=3",
    VLLM_VARIABLE: "VLLM_COMPILE_PROCESSES=4",
    INI: "ini compilepool_processes=5",
    FLAG: "--compilepool-processes=6",
    MARKER: "@pytest.mark.compilepool(processes=7)",
}


def given(numbers: dict[str, int]) -> dict[str, object]:
    return {
        "environ": {n: str(v) for n, v in numbers.items() if n in (THREADS_VARIABLE, VLLM_VARIABLE)},
        "ini": str(numbers[INI]) if INI in numbers else None,
        "flag": str(numbers[FLAG]) if FLAG in numbers else None,
        "marker": numbers.get(MARKER),
    }


@pytest.mark.parametrize("said", [c for n in range(1, 6) for c in itertools.combinations(ORDER, n)])
def test_last_wins_and_all_are_recorded(decide, said: tuple[tuple[str, int], ...]) -> None:
    decision = decide(**given(dict(said)))
    name, number = said[-1]
    assert decision.processes == number
    assert decision.decided_by.name == name
    assert decision.why == WHY[name]
    assert [r.name for r in decision.reasons] == ["policy", *(n for n, _ in said), "memory", "safety"]


def test_a_later_smaller_number_wins_too(decide) -> None:
    assert decide(ini="7", marker=2).processes == 2


def test_blanks_and_ints_are_fine(decide) -> None:
    assert decide(ini=" 4\n").processes == 4
    assert decide(ini=4).processes == 4
    assert decide(environ={THREADS_VARIABLE: "\t5 "}).why == "TORCHINDUCTOR_COMPILE_THREADS=5"
    assert parse_processes(str(MAX_PROCESSES), "x") == MAX_PROCESSES


def test_vllm_auto_is_the_formula(decide) -> None:
    environ = {THREADS_VARIABLE: "3", VLLM_VARIABLE: " Auto "}
    decision = decide(environ=environ, **machine(6))
    assert (decision.processes, decision.why) == (5, "VLLM_COMPILE_PROCESSES=auto")
    # What the formula gives because CPUs are few may be lifted, whoever asked for the formula.
    assert decide(environ=environ, at_least=2, **machine(1)).processes == 2


class TestVllmsOwnOne:
    """`import vllm` writes TORCHINDUCTOR_COMPILE_THREADS=1."""

    def test_is_ignored_and_said_so(self, decide) -> None:
        decision = decide(environ={THREADS_VARIABLE: "1"}, started_with={}, vllm_imported=True)
        assert decision.processes == 8
        (ignored,) = [r for r in decision.reasons if r.name == THREADS_VARIABLE]
        assert not ignored.used
        assert "vLLM" in ignored.note

    def test_what_it_wrote_over_counts(self, decide) -> None:
        environ, started = {THREADS_VARIABLE: "1"}, {THREADS_VARIABLE: "6"}
        decision = decide(environ=environ, started_with=started, vllm_imported=True)
        assert (decision.processes, decision.why) == (6, "TORCHINDUCTOR_COMPILE_THREADS=6")

    @pytest.mark.parametrize(
        ("now", "started", "imported", "processes"),
        [
            ("1", {THREADS_VARIABLE: "1"}, True, 1),  # the user's own
            ("1", {THREADS_VARIABLE: " 1"}, True, 1),
            ("1", {}, False, 1),  # nobody but the user can have set it
            ("4", {}, True, 4),  # vLLM writes no 4
            ("4", {THREADS_VARIABLE: "6"}, True, 4),
        ],
    )
    def test_any_other_counts(
        self, decide, now: str, started: dict[str, str], imported: bool, processes: int
    ):
        decision = decide(environ={THREADS_VARIABLE: now}, started_with=started, vllm_imported=imported)
        assert decision.processes == processes
        assert decision.why == f"{THREADS_VARIABLE}={processes}"

    def test_later_words_still_overrule(self, decide) -> None:
        environ = {THREADS_VARIABLE: "1", VLLM_VARIABLE: "2"}
        assert decide(environ=environ, started_with={}, vllm_imported=True).processes == 2

    @pytest.mark.parametrize(("start", "processes"), [(None, 8), ("1", 1), ("6", 6)])
    def test_in_a_real_process(self, elsewhere, start: str | None, processes: int) -> None:
        """The environment at the start is read from the system; the module is an empty one of that name."""
        code = """
import os, types
os.environ.pop("VLLM_COMPILE_PROCESSES", None)
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
sys.modules["vllm"] = types.ModuleType("vllm")
from pytest_compilepool.pool.policy import decide
from pytest_compilepool.resources import Cpus, Gpus, Memory
answer = decide(capabilities=None, cpus=Cpus(16, 16, None, ""), gpus=Gpus(0, ""),
                memory=Memory(1 << 40, 0, 1 << 40, "")).as_json()
"""
        # `env` from the shell's tools: the variable must be there, or not, when the process starts.
        change = ["-u", THREADS_VARIABLE] if start is None else [f"{THREADS_VARIABLE}={start}"]
        assert elsewhere(code, before=("env", *change))["processes"] == processes


class TestAtLeast:
    def test_lifts_what_the_formula_gave(self, decide) -> None:
        decision = decide(at_least=2, **machine(2))
        assert (decision.processes, decision.why) == (2, "2 for a test that asks for a pool")
        assert "min(8, 2 cpus - 1) gives 1" in decision.decided_by.note

    def test_is_not_mentioned_where_it_changes_nothing(self, decide) -> None:
        decision = decide(at_least=2)
        assert decision.processes == 8
        assert FIXTURE not in [r.name for r in decision.reasons]

    @pytest.mark.parametrize("name", [name for name, _ in ORDER])
    def test_leaves_an_explicit_one(self, decide, name: str) -> None:
        decision = decide(at_least=2, **given({name: 1}))
        assert decision.processes == 1
        assert [r.used for r in decision.reasons if r.name == FIXTURE] == [False]

    def test_leaves_an_unsafe_case(self, decide, torch) -> None:
        decision = decide(at_least=2, capabilities=torch(torch="2.8.0", quiesce=False), **machine(2))
        assert (decision.processes, decision.safe) == (1, False)

    def test_does_not_overrule_memory(self, decide) -> None:
        decision = decide(at_least=2, memory=available(GIB // 2), **machine(2))
        assert (decision.processes, decision.decided_by.name) == (1, "memory")


class TestMemory:
    def test_half_of_it_holds_sidecar_and_workers(self, decide) -> None:
        exactly = 2 * (CPU_COST.sidecar + 3 * CPU_COST.worker)
        assert decide(memory=available(exactly)).processes == 3
        assert decide(memory=available(exactly - 1)).processes == 2

    def test_a_gpu_makes_them_larger(self, decide) -> None:
        exactly = 2 * (GPU_COST.sidecar + 3 * GPU_COST.worker)
        assert decide(memory=available(exactly), **machine(16, 1)).processes == 3
        assert decide(memory=available(exactly - 1), **machine(16, 1)).processes == 2
        assert decide(memory=available(exactly - 1), **machine(16, 0)).processes > 3

    def test_lowers_a_number_that_somebody_chose(self, decide) -> None:
        decision = decide(marker=900, memory=available(4 * GIB))
        assert decision.processes == (2 * GIB - CPU_COST.sidecar) // CPU_COST.worker
        assert "in half of 4096 MiB" in decision.why
        assert any("cgroup memory limit in /x" in line for line in decision.explain())

    def test_never_raises_it(self, decide) -> None:
        decision = decide(marker=2, memory=available(1 << 41))
        assert (decision.processes, decision.decided_by.name) == (2, MARKER)

    def test_nothing_left_is_one(self, decide) -> None:
        assert decide(memory=available(0)).processes == 1

    def test_start_methods_cost_differently(self, decide) -> None:
        def room(method: str) -> int:
            return decide(marker=1000, memory=available(40 * GIB), start_method=method).processes

        assert room("fork") > room("subprocess") > room("spawn") > 1


def test_explain_names_every_reason_and_marks_the_deciding_one(decide) -> None:
    decision = decide(environ={THREADS_VARIABLE: "3", START_VARIABLE: "spawn"}, flag="2")
    lines = decision.explain()
    assert lines[0] == "processes: 2 (--compilepool-processes=2)"
    assert lines[1] == "start method: spawn (from TORCHINDUCTOR_WORKER_START)"
    assert [line for line in lines if line.startswith("->")] == [f"-> {FLAG:{len(THREADS_VARIABLE)}}  2"]
    for reason in decision.reasons:
        assert any(reason.name in line and reason.value in line and reason.note in line for line in lines)


def test_json_has_all_of_it(decide) -> None:
    data = json.loads(json.dumps(decide(flag="2").as_json()))
    assert data["processes"] == 2
    assert data["why"] == "--compilepool-processes=2"
    assert data["safe"] is True
    assert [r["name"] for r in data["reasons"]] == ["policy", FLAG, "memory", "safety"]


def test_any_combination_gives_a_number_that_its_last_reason_gave(decide, torch) -> None:
    looked_at = (None, torch(), torch(torch="2.8.0", quiesce=False))
    combinations = itertools.product(
        (1, 2, 3, 9, 384),
        (0, 1, 8),
        (0, GIB, 8 * GIB, 1 << 41),
        (None, 1, 2, MAX_PROCESSES),
        (1, 2),
        looked_at,
        ("subprocess", "fork", "spawn"),
        (False, True),
        ("linux", "win32"),
    )
    for cpus, gpus, memory, marker, at_least, capabilities, method, daemonic, platform in combinations:
        decision = decide(
            **machine(cpus, gpus),
            memory=available(memory),
            marker=marker,
            at_least=at_least,
            capabilities=capabilities,
            start_method=method,
            daemonic=daemonic,
            platform=platform,
        )
        assert 1 <= decision.processes <= MAX_PROCESSES
        assert decision.decided_by.processes == decision.processes
        assert decision.safe is (decision.unsafe_because is None)
        assert decision.safe or decision.processes == 1
        assert marker is None or decision.processes <= marker
        assert decision.why
        assert "\n" not in decision.why
