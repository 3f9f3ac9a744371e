# SPDX-License-Identifier: Apache-2.0
"""The recipes for CI: keys that the services know, environments that tox has, and their shell, run on real cells."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from stand_ins import put, run

from pytest_compilepool.conformance.shards import in_shard
from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.matrix.merge import ELSEWHERE

ROOT = Path(__file__).parents[2]
GITHUB, BUILDKITE = (ROOT / "examples/ci" / f"{name}-matrix.yml" for name in ("github", "buildkite"))
PYTORCH, VLLM = ROOT / "examples/ci/pytorch-workflow.yml", ROOT / "examples/ci/vllm-test-area.yaml"
CELLS = sorted((ROOT / "docs/matrix").glob("*.json"))


def read(file):
    yaml = pytest.importorskip("ruamel.yaml")
    return yaml.YAML(typ="safe").load(file)


@pytest.mark.parametrize(
    ("file", "schema"),
    [(GITHUB, "github-workflows"), (BUILDKITE, "buildkite"), (PYTORCH, "github-workflows")],
)
def test_the_service_knows_every_key(file, schema):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


def factors():
    text = (ROOT / "tox.ini").read_text()
    return set(re.findall(r"^    ((?:torch|vllm)\w+): PAIR_", text, re.MULTILINE)) | {"triton", "gpu"}


def test_its_environments_are_toxs():
    torches = read(GITHUB)["jobs"]["cell"]["strategy"]["matrix"]["torch"]
    environments = read(BUILDKITE)["steps"][0]["matrix"]["setup"]["environment"]
    assert {*torches} <= factors()
    for name in environments:
        python, *rest = name.split("-")
        assert re.fullmatch(r"py3\d\d", python)
        assert {*rest} <= factors(), name
    # Those that are gathered are those that were tried.
    gathering = str(read(GITHUB)["jobs"]["matrix"]) + str(read(BUILDKITE)["steps"][1])
    assert all(f" {name} " in gathering.replace(";", " ") for name in (*torches, *environments))


@pytest.fixture
def shell(tmp_path):
    """Run a step with bash as the services do. pip is there already, so it installs nothing."""
    tools = tmp_path / "stubs"
    put(tools, "pip", "")
    put(
        tools, "compilepool", "import sys; from pytest_compilepool.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )  # fmt: skip
    put(tools, "buildkite-agent", AGENT)
    put(tools, "git", 'import os; os.makedirs("compilepool")')
    put(tools, "python3.12", VENV)

    return partial(run, folder=tmp_path, tools=tools, options=("-o", "pipefail"))


VENV = """
import os, sys
os.makedirs(f"{sys.argv[3]}/bin")
open(f"{sys.argv[3]}/bin/activate", "w").close()
"""
# What it has been given lies in `artifacts`; what it is told to show is kept.
AGENT = """
import shutil, sys
if sys.argv[1:3] == ["artifact", "download"]:
    shutil.copytree("artifacts", sys.argv[4], dirs_exist_ok=True)
else:
    open("annotation", "w").write(sys.stdin.read())
"""


def halves(folder, names):
    """A real cell as the two parts of a run. names: of their files."""
    folder.mkdir(parents=True, exist_ok=True)
    cell = read_cell(CELLS[0])
    every = [*cell.results, *cell.not_run]
    for number, name in enumerate(names, 1):
        mine = in_shard(every, f"{number}/2")
        part = replace(
            cell,
            shard=f"{number}/2",
            results={key: one for key, one in cell.results.items() if key in mine},
            not_run={key: ELSEWHERE for key in every if key not in mine},
        )
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(part.to_text())
    return cell


@pytest.fixture
def github(shell, tmp_path):
    """The step that merges, after these torches have left two parts each. Returns what it said."""
    (step,) = [
        one["run"] for one in read(GITHUB)["jobs"]["matrix"]["steps"] if "Merge" in one.get("name", "")
    ]

    def run(*torches):
        for number, torch in enumerate(torches):
            halves(
                tmp_path / "parts",
                [f"part-{torch}-{2 * number}/e.json", f"part-{torch}-{2 * number + 1}/e.json"],
            )
        return shell(step, GITHUB_STEP_SUMMARY=str(tmp_path / "summary"))

    return run


def test_github_gathers_merges_and_shows(github, tmp_path):
    torches = read(GITHUB)["jobs"]["cell"]["strategy"]["matrix"]["torch"]
    told = github(*torches)
    assert (told.returncode, told.stderr) == (0, "")
    assert len(list((tmp_path / "cells").iterdir())) == len(torches)
    assert "evidence for" in (tmp_path / "summary").read_text()
    assert "<table" in (tmp_path / "page/index.html").read_text()
    assert json.loads((tmp_path / "page/support.json").read_text())["features"]


def test_github_shows_the_rest_where_a_part_is_missing(github, tmp_path):
    cell = halves(tmp_path / "parts", ["part-torch29-7/e.json", "unused/e.json"])
    told = github("torch28")
    assert told.returncode == 1
    assert len(read_cell(tmp_path / "cells/torch28.json").results) == len(cell.results)
    assert "::error::torch28 " not in told.stdout
    # One whose second half is missing, and those of which there is nothing.
    assert "::error::torch29 is not whole" in told.stdout
    assert "::error::torch215 is not whole" in told.stdout
    assert "evidence for" in (tmp_path / "summary").read_text()
    assert "<table" in (tmp_path / "page/index.html").read_text()


@pytest.mark.parametrize("many", [1, 3])
def test_buildkite_gathers_merges_and_shows(shell, tmp_path, many):
    steps = read(BUILDKITE)["steps"]
    names = steps[0]["matrix"]["setup"]["environment"][:many]
    for name in names:
        cell = halves(tmp_path / "artifacts/cells", [f"{name}.1.json", f"{name}.2.json"])
    # Buildkite makes `$` of `$$` before the shell sees it.
    told = shell(steps[1]["command"].replace("$$", "$"), COMPILEPOOL_GIT="https://example.org/it.git")
    assert told.returncode == (0 if many == 3 else 1), told.stderr
    for name in names:
        assert len(read_cell(tmp_path / f"merged/{name}.json").results) == len(cell.results)
        assert f"{name} is not whole" not in told.stdout
    assert ("is not whole" in told.stdout) == (many != 3)
    assert "evidence for" in (tmp_path / "annotation").read_text()
    assert "<table" in (tmp_path / "matrix.html").read_text()


def test_a_part_is_asked_for_as_the_command_wants_it():
    github = next(one["run"] for one in read(GITHUB)["jobs"]["cell"]["steps"] if "tox run" in str(one))
    assert "-- --shard ${{ matrix.shard }}" in github
    assert read(GITHUB)["jobs"]["cell"]["strategy"]["matrix"]["shard"] == ["1/2", "2/2"]
    buildkite = read(BUILDKITE)["steps"][0]
    assert buildkite["matrix"]["setup"]["part"] == ["1", "2"]
    assert "--shard {{matrix.part}}/2 --cell" in buildkite["command"]
