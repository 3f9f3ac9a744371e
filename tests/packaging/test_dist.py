# SPDX-License-Identifier: Apache-2.0
"""What is released: its version is the tag's, and neither clock, umask nor folder can be seen in its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOLDS = ("pytest_compilepool", "suites", "fixtures", "pyproject.toml", "README.md", "LICENSE")
COMMIT_TIME = 1_700_000_000
ODD = """
import os, runpy, sys
os.umask(0o077)
sys.argv[0] = sys.argv[1]; del sys.argv[1]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def call(*command, cwd, **environment):
    stamp = f"{COMMIT_TIME} +0000"
    fixed = {"GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp, "GIT_CONFIG_GLOBAL": os.devnull}
    # Of the outer repository, where a hook of git's has started the tests.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "SOURCE_DATE"))}
    done = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        env={**kept, **fixed, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The project as one commit, tagged v0.1.0."""
    for module in ("build", "setuptools_scm"):
        pytest.importorskip(module, reason="building needs the dependency group `build`")
    if not shutil.which("git"):
        pytest.skip("what is released is made of a commit: this needs git")
    folder = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in HOLDS:
        take = shutil.copy if (ROOT / name).is_file() else shutil.copytree
        take(ROOT / name, folder / name, **({} if take is shutil.copy else {"ignore": ignored}))
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/dist.py", folder / ".ci")
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    call(*git, "init", "--quiet", cwd=folder)
    call(*git, "add", ".", cwd=folder)
    call(*git, "commit", "--quiet", "-m", "all of it", cwd=folder)
    call(*git, "tag", "v0.1.0", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def made(repository, tmp_path_factory):
    """sdist and wheel, twice: here, and in a clone elsewhere, by somebody of another umask and another time zone."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "below"
    call("git", "clone", "--quiet", repository, elsewhere, cwd=repository)
    (elsewhere / "not-committed.py").write_text("")
    outs = [tmp_path_factory.mktemp("out") for _ in "ab"]
    dist = (".ci/dist.py", "--no-isolation")
    call(sys.executable, *dist, outs[0], cwd=repository, TZ="UTC")
    call(sys.executable, "-c", ODD, *dist, outs[1], cwd=elsewhere, TZ="Asia/Tokyo")
    return [{one.name: one for one in out.iterdir()} for out in outs]


def test_it_has_the_tags_version(made):
    assert sorted(made[0]) == ["pytest_compilepool-0.1.0-py3-none-any.whl", "pytest_compilepool-0.1.0.tar.gz"]


def test_wherever_it_is_made_it_is_the_same_bytes(made):
    first, second = made
    assert {*first} == {*second}
    for name, file in first.items():
        assert file.read_bytes() == second[name].read_bytes(), name


def test_it_is_of_nobody_and_of_the_commits_time(made):
    wheel, sdist = (made[0][name] for name in sorted(made[0]))
    with tarfile.open(sdist) as archive:
        told = {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in archive}
        modes = {one.mode for one in archive if one.isfile()}
    assert told == {(COMMIT_TIME, 0, 0, "", "")}
    assert modes <= {0o644, 0o755}
    with zipfile.ZipFile(wheel) as archive:
        years = {one.date_time[0] for one in archive.infolist()}
        modes = {one.external_attr >> 16 & 0o777 for one in archive.infolist()}
    assert years == {2023}
    assert modes <= {0o644, 0o664, 0o755}
