# SPDX-License-Identifier: Apache-2.0
"""A host laid out in a folder, a process that runs our code elsewhere, and a plain machine to decide for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pytest_compilepool
from pytest_compilepool.pool import policy
from pytest_compilepool.resources import Cpus, Gpus, Memory

_ABOVE_PACKAGE = str(Path(pytest_compilepool.__file__).parents[1])


@dataclass(frozen=True)
class Torch:
    """The part of `Capabilities` that the policy reads."""

    torch: str = "2.13.0"
    quiesce: bool = True
    start_methods: tuple[str, ...] = ("subprocess", "fork", "spawn")


class Host:
    """A root folder with a /proc, /sys and /dev of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = []

    def file(self, path: str, text: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def files(self, folder: str, **texts: str) -> None:
        """One file for each keyword; `__` stands for the dot in its name."""
        for name, text in texts.items():
            self.file(f"{folder}/{name.replace('__', '.')}", text)

    def in_cgroup(self, *lines: str) -> None:
        self.file("/proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def mount(self, point: str, kind: str, options: str = "rw", mounted: str = "/") -> None:
        """One more line of mountinfo; written as the kernel does, with and without optional fields."""
        number = 30 + len(self._mounts)
        optional = "" if number % 2 else "shared:9 "
        fields = f"{number} 23 0:{number} {mounted} {point} rw,nosuid"
        self._mounts.append(f"{fields} {optional}- {kind} {kind} {options}")
        self.file("/proc/self/mountinfo", "".join(f"{line}\n" for line in self._mounts))

    def meminfo(self, *, total: int, available: int) -> None:
        """Bytes."""
        self.file("/proc/meminfo", f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def elsewhere() -> Callable[..., Any]:
    """Run Python code in a process of its own; it sets `answer`, which comes back through JSON."""

    def run(
        code: str, *arguments: str, env: dict[str, str] | None = None, before: tuple[str, ...] = ()
    ) -> Any:
        environ = {**os.environ, **(env or {})}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ABOVE_PACKAGE, environ.get("PYTHONPATH")]))
        script = f"import json, sys\n{code}\nprint(json.dumps(answer))"
        done = subprocess.run(
            [*before, sys.executable, "-c", script, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def decide() -> Callable[..., policy.Decision]:
    """`policy.decide` on a machine with 16 CPUs, no GPU and much memory, unless the test says otherwise."""

    def call(**given: Any) -> policy.Decision:
        plain: dict[str, Any] = {
            "capabilities": Torch(),
            "environ": {},
            "started_with": {},
            "cpus": Cpus(16, 16, None, "affinity"),
            "gpus": Gpus(0, "no GPU found"),
            "memory": Memory(1 << 40, 0, 1 << 40, "physical memory"),
            "daemonic": False,
            "platform": "linux",
            "vllm_imported": False,
        }
        return policy.decide(**{**plain, **given})

    return call


@pytest.fixture
def torch() -> Callable[..., Torch]:
    return Torch
