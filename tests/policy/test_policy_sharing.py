# SPDX-License-Identifier: Apache-2.0
"""Processes that run beside each other, as xdist's workers do, share what there is."""

from __future__ import annotations

import pytest

from pytest_compilepool.pool.policy import CPU_COST
from pytest_compilepool.resources import Cpus, Gpus, Memory

GIB = 1 << 30


def machine(cpus: int, gpus: int = 0) -> dict[str, object]:
    return {"cpus": Cpus(cpus, cpus, None, "affinity"), "gpus": Gpus(gpus, "/dev/nvidia*")}


@pytest.mark.parametrize(
    ("cpus", "gpus", "sharers", "processes", "why"),
    [
        (64, 0, 4, 8, "min(8, 64 cpus // 4 xdist workers - 1)"),
        (16, 0, 4, 3, "min(8, 16 cpus // 4 xdist workers - 1)"),
        (16, 1, 4, 3, "min(8, 16 cpus // 4 xdist workers - 1)"),
        # One pool a GPU is reckoned with already.
        (16, 4, 4, 3, "min(8, 16 cpus // 4 gpus - 1)"),
        (16, 8, 4, 1, "min(8, 16 cpus // 8 gpus - 1)"),
        (2, 0, 4, 1, "min(8, 2 cpus // 4 xdist workers - 1)"),
        (16, 0, 1, 8, "min(8, 16 cpus - 1)"),
        (16, 0, 0, 8, "min(8, 16 cpus - 1)"),
    ],
)
def test_cpus_are_shared(decide, cpus, gpus, sharers, processes, why):
    decision = decide(**machine(cpus, gpus), sharers=sharers)
    assert (decision.processes, decision.why) == (processes, why)


@pytest.mark.parametrize("where", ["ini", "flag"])
@pytest.mark.parametrize(
    ("asked", "sharers", "processes"),
    [(8, 4, 2), (8, 2, 4), (9, 4, 2), (3, 4, 2), (2, 4, 2), (1, 4, 1), (16, 2, 8), (8, 1, 8)],
)
def test_a_number_for_the_run_is_shared(decide, where, asked, sharers, processes):
    decision = decide(**machine(64), sharers=sharers, at_least=2, **{where: asked})
    assert decision.processes == processes
    if asked != processes:
        assert decision.why == f"{asked} // {sharers} xdist workers"


def test_a_variable_is_shared(decide):
    decision = decide(**machine(64), sharers=4, environ={"TORCHINDUCTOR_COMPILE_THREADS": "8"})
    assert decision.processes == 2


def test_a_marker_is_its_own_tests(decide):
    assert decide(**machine(64), sharers=4, flag=8, marker=6).processes == 6


def test_auto_is_shared_once(decide):
    decision = decide(**machine(64), sharers=4, environ={"VLLM_COMPILE_PROCESSES": "auto"})
    assert decision.processes == 8


def test_memory_is_shared(decide):
    room = Memory(
        64 * GIB,
        0,
        2 * 4 * (CPU_COST.sidecar + 3 * CPU_COST.worker) + GIB // 64,
        "cgroup memory limit in /x",
    )
    assert decide(**machine(64), memory=room, sharers=1).processes == 8
    decision = decide(**machine(64), memory=room, sharers=4)
    assert decision.processes == 3
    assert "room for 3 workers in 1/8 of" in decision.why
