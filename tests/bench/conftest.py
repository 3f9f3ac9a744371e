# SPDX-License-Identifier: Apache-2.0
"""Results that were never measured, and the command, run in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_command import COMMAND, outer

from pytest_compilepool.bench.result import Result, Sample, Side

ABOUT = {
    "machine": "x86_64",
    "python": "3.11",
    "cpus": 2,
    "versions": {"torch": "2.13.0"},
    "target": "cuda:90",
}


@pytest.fixture(scope="session")
def bench() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command. tmp: its folder for temporary files, which must be empty afterwards."""

    def run(*arguments: str, tmp: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp.parent,  # in the source folder its packages would come before the installed ones
            env=outer(tmp, **variables),
            capture_output=True,
            text=True,
            timeout=300,
        )
        left = [path.name for path in tmp.iterdir() if not path.name.startswith("matplotlib")]
        assert left == []
        return done

    return run


def compile_figures(total: float, part: float, pooled: bool = False, **more: float) -> dict[str, float]:
    """Of 20 kernels; all that is no kernel is Inductor's."""
    return {
        "total": total,
        "part": part,
        "triton": 0.0 if pooled else part,
        "wait": part if pooled else 0.0,
        "inductor": total - part,
        "kernels": 20.0,
        "through": 20.0 if pooled else 0.0,
        "workers": 2.0 if pooled else 0.0,
        "longest": 0.5,
        **more,
    }


@pytest.fixture
def compiled() -> Result:
    """Two rounds; with one process 10 s of which 6 are kernels, with two 7.7 s; the second round on a slower machine."""
    one, two = Side(1, True, "model"), Side(2, True, "model")
    return Result(
        "compile",
        dict(ABOUT),
        [
            Sample(0, one, compile_figures(10, 6, first=0.3)),
            Sample(0, two, compile_figures(7.7, 3.5, True, ready=2.0, primed=0.1)),
            Sample(1, two, compile_figures(15.4, 7, True, ready=2.0, primed=0.1)),
            Sample(1, one, compile_figures(20, 12, first=0.3)),
        ],
    )


@pytest.fixture
def pools() -> Result:
    """One round, of two sizes."""
    figures = {"warm_pool_s": 0.1, "ready_s": 2.0, "shutdown_s": 0.5, "worker_uss_mb": 4.5}
    return Result(
        "pool",
        {**ABOUT, "idle_s": 5.0},
        [Sample(0, Side(2), figures), Sample(0, Side(4), {**figures, "ready_s": 3.0})],
    )
