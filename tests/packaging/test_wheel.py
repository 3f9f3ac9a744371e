# SPDX-License-Identifier: Apache-2.0
"""What the wheel holds, and that its packages are found, installed from the wheel and installed editable."""

from __future__ import annotations

import configparser
import email
import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

MAPPED = {
    "pytest_compilepool": "pytest_compilepool",
    "suites": "pytest_compilepool/suites",
    "fixtures": "pytest_compilepool/workloads",
}

LOOK = """
import importlib.metadata, importlib.util, json, sys
import pytest_compilepool, pytest_compilepool.suites, pytest_compilepool.workloads.jobs
print(json.dumps({
    "files": [module.__file__ for module in (
        pytest_compilepool, pytest_compilepool.suites, pytest_compilepool.workloads.jobs)],
    "strangers": [name for name in ("suites", "fixtures", "workloads", "tests", "examples", "benchmarks")
                  if importlib.util.find_spec(name)],
    "plugins": [point.value for point in importlib.metadata.entry_points(group="pytest11")],
    "answer": pytest_compilepool.workloads.jobs.add(2, 3),
}))
"""


def read(wheel: Path, ending: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(f".dist-info/{ending}")]
        return archive.read(name).decode()


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(
    build: Callable[[str], Path], project_copy: Path
) -> None:
    expected = {
        f"{package}/{path.relative_to(project_copy / folder).as_posix()}"
        for folder, package in MAPPED.items()
        for path in (project_copy / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(build("wheel")) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert expected - found == set(), "not in the wheel: name it in [tool.setuptools] of pyproject.toml"
    assert found - expected == set()
    assert "pytest_compilepool/py.typed" in found


def test_the_metadata(build: Callable[[str], Path]) -> None:
    told = email.message_from_string(read(build("wheel"), "METADATA"))
    assert told["Name"] == "pytest-compilepool"
    assert told["License-Expression"] == "Apache-2.0"
    assert told["License-File"] == "LICENSE"
    assert told["Requires-Python"] == ">=3.10"
    assert "Framework :: Pytest" in told.get_all("Classifier", [])
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    needs = told.get_all("Requires-Dist", [])
    # By name: no torch, no triton, no vllm. By form: a floor, and no ceiling.
    always = [need for need in needs if "extra ==" not in need]
    assert {re.split(r"\W", need)[0] for need in always} == {"packaging", "psutil", "pyelftools", "pytest"}
    assert all(re.fullmatch(r"\w+>=[\d.]+", need) for need in always), needs
    assert [need for need in needs if need not in always] == [
        'jinja2>=3.1; extra == "report"',
        'matplotlib>=3.7; extra == "plot"',
    ]


def test_the_entry_points(build: Callable[[str], Path]) -> None:
    points = configparser.ConfigParser()
    points.read_string(read(build("wheel"), "entry_points.txt"))
    assert dict(points["pytest11"]) == {"compilepool": "pytest_compilepool.plugin"}
    assert dict(points["console_scripts"]) == {"compilepool": "pytest_compilepool.cli.main:main"}


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_the_mapped_packages_are_found(
    kind: str, installed: Callable[[str], Path], project_copy: Path, tmp_path: Path
) -> None:
    python = installed(kind)
    told = json.loads(
        subprocess.run(
            [python, "-I", "-c", LOOK], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
        ).stdout
    )
    if kind == "editable":
        folders = ["pytest_compilepool/__init__.py", "suites/__init__.py", "fixtures/jobs.py"]
        assert told["files"] == [str(project_copy / name) for name in folders]
    else:
        assert all(name.startswith(str(python.parents[1])) for name in told["files"]), told["files"]
    assert told["strangers"] == []
    assert told["plugins"] == ["pytest_compilepool.plugin"]
    assert told["answer"] == 5
