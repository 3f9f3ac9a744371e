# SPDX-License-Identifier: Apache-2.0
"""Texts of small suites, and the command for the bundled one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from reference_pool.requirements import ReferenceRequirements


class Forked(ReferenceRequirements):
    """The reference pool, in interpreters that are forked."""

    preload = ("colorsys",)
    counted = 0

    def state(self) -> dict[str, object]:
        return {"counted": self.counted}


FEATURE = """
[[feature]]
id = "jobs.add"
title = "Adds"
must = "A pool MUST add."
since = "0.1"
mode = "smoke"
"""

EXPECT = """
[[expect]]
feature = "jobs.add"
torch = ">=2.8"
status = ["FAIL"]
bug = "https://example.org/1"
"""

SCENARIO = """
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs

@feature("jobs.add")
def test_add(bench):
    bench.ready()
    bench.second_job()
"""


def compilepool(*arguments: str, folder: Path, timeout: float = 170, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_compilepool.cli", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout
