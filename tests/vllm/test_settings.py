# SPDX-License-Identifier: Apache-2.0
"""What the environment of a worker asks for, and the number that follows."""

from __future__ import annotations

import types

import pytest

from pytest_compilepool.pool.policy import VLLM_VARIABLE
from pytest_compilepool.resources import Cpus, Memory
from pytest_compilepool.vllm.settings import BadSetting, Settings, decide, from_environment, why_one

LOTS = Memory(1 << 40, 0, 1 << 40, "a test")
CAN = types.SimpleNamespace(torch="2.13.0", quiesce=True, start_methods=("subprocess",))
CANNOT = types.SimpleNamespace(torch="2.8.0", quiesce=False, start_methods=("subprocess",))


def number(text, cpus, ranks, capabilities=CAN, memory=LOTS):
    machine = Cpus(cpus, cpus, None, "a test")
    return decide(Settings(text), ranks, capabilities, cpus=machine, memory=memory).processes


@pytest.mark.parametrize("environ", [{}, {VLLM_VARIABLE: ""}, {VLLM_VARIABLE: "  "}])
def test_nothing_is_asked_for(environ):
    assert from_environment(environ) is None


def test_what_is_asked_for():
    assert from_environment({VLLM_VARIABLE: " Auto "}) == Settings("auto")
    found = from_environment(
        {
            VLLM_VARIABLE: "4",
            "VLLM_COMPILE_POOL_READY_TIMEOUT": "2.5",
            "VLLM_COMPILE_POOL_JOB_TIMEOUT": "30",
            "VLLM_COMPILE_POOL_EVENTS": "/tmp/events",
        }
    )
    assert found == Settings("4", 2.5, 30.0, "/tmp/events")


@pytest.mark.parametrize("text", ["lots", "0", "9999", "-1", "2.5", "1_0", "٣", "True"])
def test_no_number(text):
    with pytest.raises(BadSetting) as caught:
        from_environment({VLLM_VARIABLE: text})
    assert str(caught.value) == (
        f"VLLM_COMPILE_PROCESSES: {text!r} is not a number of compile processes; "
        "allowed is auto, or a whole number from 1 to 1024"
    )


@pytest.mark.parametrize("name", ["VLLM_COMPILE_POOL_READY_TIMEOUT", "VLLM_COMPILE_POOL_JOB_TIMEOUT"])
@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf", "1e3", "86401", "1_0"])
def test_no_time(name, text):
    with pytest.raises(BadSetting, match=f"^{name}: '{text}' is not a time; allowed are seconds"):
        from_environment({VLLM_VARIABLE: "2", name: text})


@pytest.mark.parametrize(
    ("cpus", "ranks", "expected"),
    [(16, 1, 8), (16, 2, 7), (16, 4, 3), (16, 8, 1), (2, 1, 1), (4, 1, 3), (128, 8, 8)],
)
def test_the_policy_shares_the_cpus_among_the_ranks(cpus, ranks, expected):
    """min(8, cpu_count // num_gpus - 1), as the pull request has it."""
    assert number("auto", cpus, ranks) == expected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            "auto",
            (
                "VLLM_COMPILE_PROCESSES=auto is min(8, 2 cpus // 1 gpu - 1), which is 1 process here; "
                "a number, such as VLLM_COMPILE_PROCESSES=2, is taken as it is"
            ),
        ),
        ("1", "VLLM_COMPILE_PROCESSES=1"),
    ],
)
def test_why_there_is_no_pool(asked, says):
    cpus = Cpus(2, 2, None, "a test")
    assert why_one(decide(Settings(asked), 1, CAN, cpus=cpus, memory=LOTS)) == says
    unable = decide(Settings(asked), 1, CANNOT, cpus=cpus, memory=LOTS)
    assert why_one(unable) == "torch 2.8.0 cannot quiesce its compile pool"


def test_a_number_is_followed_on_few_cpus():
    assert number("4", 2, 1) == 4


def test_memory_bounds_it():
    assert number("8", 16, 1, memory=Memory(2 << 30, 0, 2 << 30, "a test")) < 8


def test_a_torch_that_cannot_quiesce_has_no_pool():
    assert number("8", 16, 1, CANNOT) == 1


def test_what_torch_own_variable_says_is_vllm_word(monkeypatch):
    """vLLM writes 1 there when it is imported."""
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    assert number("4", 16, 1) == 4
