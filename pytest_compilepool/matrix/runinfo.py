# SPDX-License-Identifier: Apache-2.0
"""Of which environment a cell is: the machine, the interpreter, and the variables that matter. Imports no torch."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_compilepool import resources

_MATTER = ("TORCHINDUCTOR_", "TORCHDYNAMO_", "TORCH_", "TRITON_", "VLLM_", "CUDA_", "COMPILEPOOL_VLLM_")
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")
_PLACES = ("_DIR", "_ROOT", "_HOME", "_PATH", "_CACHE")
"""Ends of names of variables that say where something lies on a machine: that differs, and means nothing."""

_DRIVER = Path("/sys/module/nvidia/version")


def machine(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """By name: python, os, kernel, arch, cpus (usable ones), memory_limit (bytes), environment, ci (address of the job),
    host (a hash), and driver where there is one."""
    environ = os.environ if environ is None else environ
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "os": _system(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cpus": resources.usable_cpus().count,
        "memory_limit": resources.memory_budget().limit,
        "environment": {name: value for name, value in sorted(environ.items()) if _matters(name)},
        "host": hashlib.sha256(platform.node().encode()).hexdigest()[:12],
    }
    if address := ci(environ):
        found["ci"] = address
    try:
        found["driver"] = _DRIVER.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        pass
    return found


def as_text(seconds: float) -> str:
    """As `run_info.started` has it: ISO 8601, UTC. seconds: `time.time()`."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")


def ci(environ: Mapping[str, str]) -> str:
    """Address of the job that this is part of, by what GitHub and Buildkite and others tell; or an empty text."""
    if environ.get("GITHUB_RUN_ID"):
        server = environ.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{environ.get('GITHUB_REPOSITORY', '')}/actions/runs/{environ['GITHUB_RUN_ID']}"
    named = ("BUILDKITE_BUILD_URL", "CI_JOB_URL", "BUILD_URL", "CIRCLE_BUILD_URL")
    return next((environ[name] for name in named if environ.get(name)), "")


def _matters(name: str) -> bool:
    return (
        name.startswith(_MATTER) and not name.endswith(_PLACES) and not any(word in name for word in _SECRET)
    )


def _system() -> str:
    try:
        told = platform.freedesktop_os_release()
        return f"{told.get('NAME', 'Linux')} {told.get('VERSION_ID', '')}".strip()
    except OSError:
        return (
            f"{platform.system()} {platform.mac_ver()[0]}".strip()
            if sys.platform == "darwin"
            else platform.system()
        )
