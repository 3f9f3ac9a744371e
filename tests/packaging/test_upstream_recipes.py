# SPDX-License-Identifier: Apache-2.0
"""The recipes for PyTorch and vLLM: what they may do, keys that the services know, and their shell, run on real cells."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from stand_ins import put, run

from pytest_compilepool.matrix.cell import read_cell

ROOT = Path(__file__).parents[2]
PYTORCH, VLLM = ROOT / "examples/ci/pytorch-workflow.yml", ROOT / "examples/ci/vllm-test-area.yaml"
CELLS = ROOT / "docs/matrix"
OLD, NEW = CELLS / "py311-torch214-triton.json", CELLS / "py311-torch215-triton.json"
# A step of .buildkite/test_areas, as vLLM's own files have them; the generator that reads them is vLLM's.
STEP_KEYS = {
    "label", "key", "device", "timeout_in_minutes", "soft_fail", "optional", "working_dir", "num_devices", "if",
    "source_file_dependencies", "commands",
}  # fmt: skip


def read(file):
    yaml = pytest.importorskip("ruamel.yaml")
    return yaml.YAML(typ="safe").load(file)


def steps():
    return read(PYTORCH)["jobs"]["compile-pool"]["steps"]


def script(name):
    """The shell of the workflow's step of that name."""
    return next(step["run"] for step in steps() if step.get("name") == name)


def test_the_workflow_may_do_nothing_and_is_bounded():
    text, workflow = PYTORCH.read_text(), read(PYTORCH)
    assert workflow["permissions"] == {}
    assert "secrets." not in text
    assert workflow["jobs"]["compile-pool"]["timeout-minutes"] <= 60
    for action in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    # What somebody types into the form is a value for the shell, never a part of it.
    for step in steps():
        assert "${{" not in step.get("run", "")


@pytest.fixture
def shell(tmp_path):
    """Run shell as a service does. pip installs nothing; `compilepool run` copies a cell that is there."""
    tools = tmp_path / "stubs"
    put(tools, "pip", "import sys; open('installed', 'a').write(' '.join(sys.argv[1:]) + '\\n')")
    put(tools, "python", VENV)
    put(tools, "compilepool", COMPILEPOOL)
    put(tools, "buildkite-agent", "import sys; open('uploaded', 'w').write(' '.join(sys.argv[1:]))")

    return partial(run, folder=tmp_path, tools=tools, PYTHONPATH=str(ROOT))


VENV = """
import os, sys
assert sys.argv[1:3] == ["-m", "venv"]
os.makedirs(f"{sys.argv[3]}/bin")
open(f"{sys.argv[3]}/bin/activate", "w").close()
"""
# The arguments are those that the real command takes: it reads them, and nothing is tried.
COMPILEPOOL = """
import argparse, os, shutil, sys
from pytest_compilepool.cli import main as cli, run

if sys.argv[1] == "run":
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    parser.parse_args(sys.argv[2:])
    cell = sys.argv[sys.argv.index("--cell") + 1]
    if os.environ["CELL"]:
        shutil.copy(os.environ["CELL"], cell)
    open("required", "a").write(sys.argv[sys.argv.index("--require") + 1] + "\\n")
    sys.exit(int(os.environ.get("STATUS", 0)))
if sys.argv[1] == "doctor":
    sys.exit(0)
sys.exit(cli.main(sys.argv[1:]))
"""


def nightly(shell, tmp_path, base, head, **environment):
    """The three steps, one after the other, as long as each ends well. Returns what the last of them said."""
    for name, cell in (("Try the release", base), ("Try the nightly", head), ("Compare", "")):
        told = shell(
            script(name),
            CELL=str(cell),
            BASE="torch==2.14.1",
            HEAD="torch==2.15.0",
            INDEX="https://example.org/nightly",
            SUITE="pytest-compilepool",
            GITHUB_STEP_SUMMARY=str(tmp_path / "summary"),
            **environment,
        )
        if told.returncode:
            break
    return told


@pytest.mark.parametrize("status", ["0", "1"])
def test_a_nightly_that_breaks_nothing_is_green(shell, tmp_path, status):
    told = nightly(shell, tmp_path, OLD, NEW, STATUS=status)
    assert (told.returncode, told.stderr) == (0, "")
    assert not (tmp_path / "base").exists(), "the runner has room for one torch"
    assert (tmp_path / "required").read_text() == "torch==2.14.1,triton\ntriton\n"
    installed = (tmp_path / "installed").read_text().splitlines()
    assert installed[0].endswith("pytest-xdist pytest-compilepool torch==2.14.1")
    assert "--pre --extra-index-url https://example.org/nightly" in installed[1]
    summary = (tmp_path / "summary").read_text()
    assert "submit.system-exit" in summary
    assert "evidence for" in summary
    for one in ("base", "head"):
        assert read_cell(tmp_path / f"cells/{one}.json").results


def test_a_nightly_that_breaks_what_was_kept_is_red(shell, tmp_path):
    broken = tmp_path / "broken.json"
    text = NEW.read_text()
    kept = re.search(r'"id": "death.worker",\s+"status": "PASS",\s+"got": "PASS"', text)[0]
    broken.write_text(text.replace(kept, kept.replace("PASS", "FAIL")))
    told = nightly(shell, tmp_path, OLD, broken)
    assert told.returncode == 1
    assert "death.worker" in told.stdout
    assert "death.worker" in (tmp_path / "summary").read_text()


def test_a_nightly_without_a_cell_is_red(shell, tmp_path):
    told = nightly(shell, tmp_path, OLD, "", STATUS="4")
    assert told.returncode != 0
    assert not (tmp_path / "summary").exists()


def test_the_area_is_one_of_vllms():
    area = read(VLLM)
    assert {*area} == {"group", "depends_on", "steps"}
    assert area["depends_on"] == ["image-build"]
    for step in area["steps"]:
        assert {*step} <= STEP_KEYS
        assert step["timeout_in_minutes"] <= 60
        assert step["source_file_dependencies"]
        # Buildkite would put a variable of its own in its place.
        assert not any("$" in command for command in step["commands"])
        # They are joined with &&.
        assert not any("||" in command for command in step["commands"])
        for command in step["commands"]:
            assert shlex.split(command)


@pytest.mark.parametrize(("status", "cell"), [("0", NEW), ("1", NEW), ("4", "")])
def test_the_area_keeps_the_cell_and_the_status(shell, tmp_path, status, cell):
    (step,) = read(VLLM)["steps"]
    told = shell(" && ".join(step["commands"]), CELL=str(cell), STATUS=status)
    assert told.returncode == int(status), told.stderr
    assert (tmp_path / "required").read_text() == "vllm,gpu\n"
    assert (tmp_path / "uploaded").read_text() == "artifact upload compile-pool.json"
    assert (tmp_path / "compile-pool.json").exists() == bool(cell)
    assert ("evidence for" in told.stdout) == (status == "0")
