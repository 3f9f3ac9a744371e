# SPDX-License-Identifier: Apache-2.0
"""Loading the plugin imports none of the heavy packages; only a test that asks for a pool does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"elftools", "matplotlib", "numpy", "psutil", "torch", "triton", "vllm"}

# Written at the very end, after the plugin's own report.
CONFTEST = """
import json, pathlib, sys, pytest

@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    pathlib.Path("modules.json").write_text(json.dumps(sorted(sys.modules)))
"""

TEST = """
def test_nothing():
    pass
"""

# Every module of the package but those that are run, collected, or imported on demand only.
WALK = """
import importlib, json, pkgutil, sys
import pytest_compilepool

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name.rsplit(".", 1)[1].startswith(("__main__", "_triton_source", "primed", "test_", "conftest")):
            continue
        found = importlib.import_module(module.name)
        if module.ispkg:
            walk(found)

walk(pytest_compilepool)
for name in ("suites", "workloads"):
    walk(importlib.import_module("pytest_compilepool." + name))
print(json.dumps(sorted(sys.modules)))
"""


def run(*command: str, cwd: Path, autoload: bool = True) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    environment.pop("PYTEST_ADDOPTS", None)
    environment.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)
    if not autoload:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


def heavy(modules: list[str]) -> set[str]:
    return HEAVY & {name.split(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("autoload", "options"),
    [
        (False, ["-p", "compilepool"]),
        # pytest-randomly imports numpy where there is one: that is not our doing.
        (True, ["-p", "compilepool", "-p", "no:randomly"]),
        (True, ["-p", "no:randomly"]),
    ],
    ids=["named", "named-and-autoloaded", "autoloaded"],
)
def test_a_run_that_uses_nothing_imports_nothing(autoload: bool, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TEST)
    done = run("-m", "pytest", *options, "--rootdir=.", "-v", cwd=tmp_path, autoload=autoload)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert "pytest_compilepool.plugin" in modules
    assert heavy(modules) == set()


@pytest.mark.parametrize("question", ["--help", "--markers", "--fixtures"])
def test_asking_pytest_what_there_is_imports_nothing(question: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    done = run("-m", "pytest", "-p", "compilepool", question, cwd=tmp_path, autoload=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compile_pool" in done.stdout or "compilepool" in done.stdout
    assert heavy(json.loads((tmp_path / "modules.json").read_text())) == set()


def test_importing_every_module_imports_nothing(tmp_path: Path) -> None:
    done = run("-c", WALK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout)
    assert "pytest_compilepool.workloads.triton_kernels" in modules
    assert heavy(modules) == set()
