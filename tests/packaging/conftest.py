# SPDX-License-Identifier: Apache-2.0
"""The wheel, built once: from a copy, so that the source folder stays as it is, and without the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])
"""


@pytest.fixture(scope="session")
def project_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project in it as it lies on the disk, but for git and what tools left behind."""
    pytest.importorskip("setuptools_scm", reason="building a wheel needs the dependency group `build`")
    copy = tmp_path_factory.mktemp("project")
    left_behind = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for name in ("pytest_compilepool", "suites", "fixtures", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=left_behind)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="session")
def build(project_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a function that builds a "wheel" or an "editable" one, once each, and returns its path."""
    built: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in built:
            out = tmp_path_factory.mktemp(kind)
            done = subprocess.run(
                [sys.executable, "-c", BUILD, kind, str(out)],
                cwd=project_copy,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            (built[kind],) = out.glob("*.whl")
        return built[kind]

    return make


@pytest.fixture(scope="session")
def installed(
    build: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives a function that installs such a wheel, and nothing else, in an environment of its own.

    It returns the environment's interpreter. A wheel of plain Python is installed by unpacking it.
    """
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            home = tmp_path_factory.mktemp(f"{kind}-env")
            venv.create(home, with_pip=False, symlinks=os.name != "nt")
            (packages,) = [*home.glob("lib/python*/site-packages"), *home.glob("Lib/site-packages")]
            with zipfile.ZipFile(build(kind)) as wheel:
                wheel.extractall(packages)
            made[kind] = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        return made[kind]

    return make
