# SPDX-License-Identifier: Apache-2.0
"""Where a pool would be unsafe there is none, whoever asks for one, and the reason is told."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("asked", [{}, {"marker": 4}, {"flag": "4"}, {"at_least": 2}])
@pytest.mark.parametrize(
    ("case", "because"),
    [
        ({"platform": "win32"}, "Windows"),
        ({"capabilities": ("2.8.0", False)}, "torch 2.8.0 cannot quiesce"),
        ({"daemonic": True, "start_method": "fork"}, "daemonic process may not start a pool by fork"),
        ({"daemonic": True, "start_method": "spawn"}, "daemonic process may not start a pool by spawn"),
    ],
)
def test_unsafe(decide, torch, asked: dict, case: dict, because: str) -> None:
    if "capabilities" in case:
        version, quiesce = case["capabilities"]
        case = {"capabilities": torch(torch=version, quiesce=quiesce)}
    decision = decide(**asked, **case)
    assert (decision.processes, decision.safe) == (1, False)
    assert because in decision.unsafe_because
    assert decision.why == decision.unsafe_because
    assert decision.decided_by.name == "safety"
    assert f"unsafe: {decision.unsafe_because}" in decision.explain()


@pytest.mark.parametrize(
    "case",
    [
        {"daemonic": True},
        {"daemonic": False, "start_method": "fork"},
        {"platform": "darwin"},
    ],
)
def test_safe(decide, case: dict) -> None:
    decision = decide(**case)
    assert (decision.processes, decision.safe, decision.unsafe_because) == (8, True, None)


def test_torch_not_looked_at_is_said_and_not_unsafe(decide) -> None:
    decision = decide(capabilities=None, flag="4")
    assert (decision.processes, decision.safe) == (4, True)
    assert decision.reasons[-1].name == "safety"
    assert decision.reasons[-1].value == "torch was not looked at"


DAEMON = """
import multiprocessing
from pytest_compilepool.pool.policy import decide
from pytest_compilepool.resources import Cpus, Gpus, Memory

class Torch:
    torch, quiesce, start_methods = "2.13.0", True, ("subprocess", "fork", "spawn")

def work(method, to):
    to.send(decide(capabilities=Torch, flag=4, start_method=method, environ={}, cpus=Cpus(16, 16, None, ""),
                   gpus=Gpus(0, ""), memory=Memory(1 << 40, 0, 1 << 40, "")).as_json())

method, daemon = sys.argv[1], sys.argv[2] == "daemon"
context = multiprocessing.get_context("fork")
mine, theirs = context.Pipe()
child = context.Process(target=work, args=(method, theirs), daemon=daemon)
child.start()
assert mine.poll(30)
answer = mine.recv()
child.join(30)
"""


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="this system has no fork")
@pytest.mark.parametrize(
    ("method", "kind", "processes"),
    [("fork", "daemon", 1), ("spawn", "daemon", 1), ("subprocess", "daemon", 4), ("fork", "plain", 4)],
)
def test_in_a_real_daemonic_process(elsewhere, method: str, kind: str, processes: int) -> None:
    answer = elsewhere(DAEMON, method, kind)
    assert answer["processes"] == processes
    assert answer["safe"] is (processes == 4)


def test_the_installed_torch(elsewhere) -> None:
    """What torch_compat really answers has what the policy reads."""
    pytest.importorskip("torch", reason="torch is not installed, so there is nothing to look at")
    code = """
from pytest_compilepool.pool.policy import decide
from pytest_compilepool.torch_compat import capabilities
seen = capabilities()
answer = [decide(capabilities=seen, flag=2, environ={}).as_json(), seen.torch, seen.quiesce]
"""
    decision, version, quiesce = elsewhere(code)
    assert decision["safe"] is quiesce
    assert version in decision["reasons"][-1]["value"]


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux tells all this without psutil")
def test_deciding_imports_neither_torch_nor_psutil(elsewhere) -> None:
    code = """
from pytest_compilepool.pool.policy import decide
decide(capabilities=None, environ={})
heavy = {"torch", "triton", "vllm", "psutil", "multiprocessing"} & set(sys.modules)
answer = sorted(heavy)
"""
    assert elsewhere(code) == []
