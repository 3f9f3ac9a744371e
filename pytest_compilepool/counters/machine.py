# SPDX-License-Identifier: Apache-2.0
"""What a baseline depends on: torch, vLLM and the class of device."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from packaging.version import InvalidVersion, Version

from pytest_compilepool import vllm_compat
from pytest_compilepool.torch_compat.installed import installed_version

_ASKING = 120.0  # seconds for a fresh interpreter to import torch and look at the GPU

_QUESTION = """
import json, torch
gpu = torch.cuda
name = getattr(gpu.get_device_properties(0), "gcnArchName", "") if torch.version.hip else ""
print(json.dumps([name, *gpu.get_device_capability(0)]))
"""


class Machine:
    """What this machine is to a baseline. A GPU is looked at once at most; one object for a session."""

    def __init__(self) -> None:
        self._gpu: str | None = None

    def key(self) -> str:
        """`torch 2.13.0, vllm none, cpu`: base versions (a nightly of 2.14.0 is 2.14.0) and class of device."""
        torch, vllm = installed_version() or "none", vllm_compat.vllm_version() or "none"
        return f"torch {base_version(torch)}, vllm {base_version(vllm)}, {self.device()}"

    def device(self) -> str:
        """`cpu`, or the class of the first GPU that torch sees: `sm90`, `gfx942`. Does not initialise CUDA."""
        torch: Any = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            return "cpu"
        if torch.cuda.is_initialized():
            major, minor = torch.cuda.get_device_capability(0)
            name = (
                getattr(torch.cuda.get_device_properties(0), "gcnArchName", "") if torch.version.hip else ""
            )
            return device_class(name, major, minor)
        if self._gpu is None:
            self._gpu = _asked_elsewhere()
        return self._gpu


def device_class(hip_name: str, major: int, minor: int) -> str:
    """The class of a GPU. hip_name: as AMD names it (`gfx942:sramecc+:xnack-`), empty for NVIDIA's."""
    return hip_name.partition(":")[0] or f"sm{major}{minor}"


def base_version(text: str) -> str:
    """A version without what comes after its numbers; what is no version stays as it is."""
    try:
        return Version(text).base_version
    except InvalidVersion:
        return text


def _asked_elsewhere() -> str:
    """The first GPU, by an interpreter of its own: CUDA, once initialised here, would break a fork of the test."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=_ASKING,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        name, major, minor = json.loads(done.stdout.strip().rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError):
        return "gpu"  # one that answers nobody else; what runs on it is no CPU's count
    return device_class(str(name), int(major), int(minor))
