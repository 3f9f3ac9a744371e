# SPDX-License-Identifier: Apache-2.0
"""The workflows of this repository: keys that the service knows, no right too many, and commands that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# Those that may ask an index for a key do nothing but this.
UPLOADS = {"actions/download-artifact", "pypa/gh-action-pypi-publish"}
EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)


def read(path):
    yaml = pytest.importorskip("ruamel.yaml")
    return yaml.YAML(typ="safe").load(path)


def named(name):
    return read(ROOT / ".github/workflows" / f"{name}.yml")


def steps(workflow):
    return [(job, step) for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_some():
    assert [one.stem for one in WORKFLOWS] == ["ci", "nightly", "release"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_service_knows_every_key(path):
    pytest.importorskip("check_jsonschema")
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(path),
    ]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_right_too_many(path):
    workflow = read(path)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"], name
        rights = job.get("permissions", {})
        assert {*rights.items()} <= {("contents", "read"), ("id-token", "write")}, name
        if "id-token" in rights:
            assert {*rights} == {"id-token"}
            # Somebody can be asked before it runs, and what it runs is not to be changed from here.
            assert job["environment"]["name"]
            assert {step.get("uses", "a command").partition("@")[0] for step in job["steps"]} == UPLOADS
    for _, step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            # Else the key of the run lies in .git/config, for whatever the steps after it run.
            assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_its_commands_are_there(path):
    for _, step in steps(read(path)):
        script = step.get("run", "")
        # What somebody may choose, as the name of a branch, goes by way of the environment: it is no part of a script.
        assert all("matrix." in one for one in EXPRESSION.findall(script)), script
        script = EXPRESSION.sub("x", script)
        told = subprocess.run(
            ["bash", "-n", "-c", script], capture_output=True, text=True, timeout=20, check=False
        )
        assert told.returncode == 0, told.stderr
        for file in re.findall(r"(?:python|bash) (\S+)", script):
            assert (ROOT / file).is_file(), file
        groups = {*re.findall(r"--group (\S+)", script)}
        assert groups <= {*re.findall(r"^(\w+) = \[", pyproject("dependency-groups"), re.MULTILINE)}


def pyproject(table):
    text = (ROOT / "pyproject.toml").read_text()
    return re.split(rf"^\[{table}\]$", text, maxsplit=1, flags=re.MULTILINE)[1].split("\n[")[0]


def test_every_python_it_says_it_runs_on_is_tried():
    said = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', pyproject("project"))
    assert named("ci")["jobs"]["wheel"]["strategy"]["matrix"]["python"] == said


def test_ci_is_the_script_that_developers_run():
    assert {"run": "bash .ci/run"} in named("ci")["jobs"]["checks"]["steps"]


def test_what_is_uploaded_is_what_was_built_and_tried():
    jobs = named("release")["jobs"]
    (path,) = [
        step["with"]["path"] for step in jobs["build"]["steps"] if step.get("with", {}).get("name") == "dist"
    ]
    built = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert any(f".ci/dist.py {path.rstrip('/')}" in one for one in built)
    assert sum(f"{path.rstrip('/')}/*.whl" in one for one in built) == 3
    for name in ("testpypi", "pypi"):
        assert jobs[name]["needs"] == "build"
        assert jobs[name]["steps"][0]["with"] == {"name": "dist", "path": path}
    # A tag goes to one of them.
    first, second = (jobs[name]["if"].strip("${} ") for name in ("testpypi", "pypi"))
    assert second == f"!{first}"


def test_what_a_change_does_not_wait_for_is_passed_every_night():
    (step,) = [step for _, step in steps(named("nightly")) if "run" in step]
    assert step == {"run": "./run-tests", "env": {"COMPILEPOOL_TESTS": "all"}}


@pytest.mark.parametrize(
    ("chosen", "wanted", "counts"),
    [
        ("test_two.py", "", {"passed": 2, "skipped": 1}),
        ("test_two.py", "all", {"passed": 3}),
        ("test_two.py::test_of[2]", "", {"passed": 1}),
    ],
)
def test_what_is_left_out_is_told(pytester, monkeypatch, chosen, wanted, counts):
    tests = ROOT / "tests"
    pytester.makeconftest((tests / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(
        test_two="""
import pytest
from tiers import further

@pytest.mark.parametrize("number", [1, *further(2)])
def test_of(number): assert number

def test_other(): pass
"""
    )
    pytester.makeini("[pytest]\nmarkers = thorough: as in this project")
    monkeypatch.setenv("PYTHONPATH", str(tests))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COMPILEPOOL_TESTS", wanted)
    result = pytester.runpytest_subprocess("-ra", chosen)
    result.assert_outcomes(**counts)
    if "skipped" in counts:
        result.stdout.fnmatch_lines(["SKIPPED*: thorough: COMPILEPOOL_TESTS=all passes it"])
