# SPDX-License-Identifier: Apache-2.0
"""What makes the start of a session dear, counted and not timed: modules, dataclasses, questions about entry points.

The figure is in docs/benchmarks.md; who adds to these lists adds to it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LOADED = {
    "pytest_compilepool",
    "pytest_compilepool.conformance",
    "pytest_compilepool.conformance.feature",
    "pytest_compilepool.fixtures",
    "pytest_compilepool.fixtures.conformance",
    "pytest_compilepool.fixtures.engines",
    "pytest_compilepool.fixtures.pools",
    "pytest_compilepool.fixtures.proofs",
    "pytest_compilepool.genuine",
    "pytest_compilepool.keys",
    "pytest_compilepool.marks",
    "pytest_compilepool.newhooks",
    "pytest_compilepool.options",
    "pytest_compilepool.plugin",
    "pytest_compilepool.report",
    "pytest_compilepool.report.conformance",
    "pytest_compilepool.report.terminal",
    "pytest_compilepool.room",
    "pytest_compilepool.runrecord",
    "pytest_compilepool.session",
    "pytest_compilepool.sessionguard",
    "pytest_compilepool.torch_compat",
    "pytest_compilepool.torch_compat.installed",
    "pytest_compilepool.xdist",
}

# Where there is a torch, so that pools can appear: what notices one.
LOADED_WITH_TORCH = {
    "pytest_compilepool.pool",
    "pytest_compilepool.pool.blocker",
    "pytest_compilepool.prestart",
    "pytest_compilepool.torch_compat.afterimport",
    "pytest_compilepool.torch_compat.creation",
}

# For pytest's header, which -q leaves out: the formula and what it is fed with.
LOADED_FOR_HEADER = {
    "pytest_compilepool.cgroups",
    "pytest_compilepool.pool",
    "pytest_compilepool.pool.policy",
    "pytest_compilepool.resources",
    "pytest_compilepool.sessionpools",
    "pytest_compilepool.words",
}

OURS = "pytest_compilepool"

# Runs pytest in this process and tells what came of it; `asked`: how often all distributions were looked through.
SCRIPT = """
import dataclasses, importlib.metadata, json, sys
asked = []
real = importlib.metadata.distributions
importlib.metadata.distributions = lambda *args, **named: asked.append(1) or real(*args, **named)
import pytest
status = pytest.main(sys.argv[1:])
made = {
    f"{value.__module__}.{value.__qualname__}"
    for name, module in list(sys.modules.items())
    if name.startswith("pytest_compilepool")
    for value in vars(module).values()
    if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == name
}
answer = {"status": int(status), "asked": len(asked), "dataclasses": sorted(made), "modules": sorted(sys.modules)}
open("answer.json", "w").write(json.dumps(answer))
"""


def session(folder: Path, *options: str) -> dict[str, Any]:
    """One test that uses nothing, in a fresh interpreter."""
    (folder / "test_it.py").write_text("def test_nothing():\n    pass\n")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--rootdir=.", "-p", "no:cacheprovider", *options, "test_it.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    assert answer["status"] == 0, done.stdout
    return answer


def expected(*more: set[str]) -> set[str]:
    found = LOADED.union(*more)
    return found | LOADED_WITH_TORCH if importlib.util.find_spec("torch") else found


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return session(tmp_path_factory.mktemp("with"), "-q", "-p", "compilepool")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return session(tmp_path_factory.mktemp("without"), "-q", "-p", "no:compilepool")


def ours(answer: dict[str, Any]) -> set[str]:
    return {name for name in answer["modules"] if name.split(".")[0] == OURS}


def test_only_what_every_session_needs_is_loaded(quiet: dict[str, Any]) -> None:
    assert ours(quiet) == expected()


def test_nothing_of_others_is_loaded(quiet: dict[str, Any], without: dict[str, Any]) -> None:
    assert ours(without) == set()
    assert set(quiet["modules"]) - set(without["modules"]) == ours(quiet)


def test_the_header_loads_the_formula(tmp_path: Path) -> None:
    assert ours(session(tmp_path, "-p", "compilepool")) == expected(LOADED_FOR_HEADER)


def test_no_dataclass_is_made(quiet: dict[str, Any]) -> None:
    """Each takes a third of a millisecond."""
    assert quiet["dataclasses"] == []


def test_distributions_are_looked_through_once(quiet: dict[str, Any], without: dict[str, Any]) -> None:
    """By pytest itself, for the name after -p; once more for each name in `pytest_plugins`, so there are none."""
    assert quiet["asked"] == without["asked"] + 1
