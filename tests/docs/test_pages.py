# SPDX-License-Identifier: Apache-2.0
"""Every page, followed literally: its files written, its commands typed, what they print compared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip(
    "markdown_it", reason="reading the pages needs markdown-it-py, of the dependency group `test`"
)

from blocks import Command, File, Page, read_page
from shell import Shell, bare_python, difference

ROOT = Path(__file__).parents[2]
CLONE = "pytest-compilepool"
"""What `git clone` calls the folder that it makes."""
WRITTEN_ELSEWHERE = ("docs/_build", "docs/upstream")
"""docs/upstream has scripts beside its pages, which test_upstream.py runs."""

PAGES = [
    page
    for page in map(read_page, [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
    if not page.path.relative_to(ROOT).as_posix().startswith(WRITTEN_ELSEWHERE)
]


def name(page: Page) -> str:
    return page.path.relative_to(ROOT).as_posix()


def not_run() -> Iterator[object]:
    for page in PAGES:
        for line, reason in page.not_run:
            yield pytest.param(reason, id=f"{name(page)}:{line}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_run_or_says_why_not(page):
    assert not page.wrong


@pytest.mark.parametrize("reason", [*not_run()])
def test_block_not_run(reason):
    """Counted and printed among the skipped."""
    assert reason
    pytest.skip(reason)


def tracked(folder):
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    for entry in filter(None, listed.stdout.split("\0")):
        if (ROOT / entry).is_file():
            target = folder / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / entry).read_bytes())
            target.chmod((ROOT / entry).stat().st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.steps], ids=name)
def test_what_it_says_is_what_happens(page, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    if "in a clone" in page.traits:
        tracked(folder)
    if "beside a clone" in page.traits:
        tracked(folder / CLONE)
    bin = bare_python() if "fresh environment" in page.traits else Path(sys.executable).parent
    shell = Shell(folder, bin, tmp_path)
    for step in page.steps:
        if isinstance(step, File):
            file = folder / step.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(step.text)
        else:
            follow(shell, page, step)
    if files := never_named(page):
        names = " ".join(file.name for file in files)
        follow(
            shell,
            page,
            Command(files[0].line, f"python -m pytest -q --compilepool-leaks=fail {names}", "", limit=300),
        )
    assert not shell.left()


def follow(shell, page, command):
    status, printed = shell.type(command)
    where = f"{name(page)}:{command.line}: $ {command.typed}\n"
    assert status != -1, f"{where}ended after {command.limit:.0f} s\n{printed}"
    assert status == command.exit_status, f"{where}exit status {status}, not {command.exit_status}\n{printed}"
    assert not (told := difference(command.prints, printed)), where + told


def runs_tests(typed):
    return any(word in typed.split() for word in ("pytest", "compilepool", "tox"))


def never_named(page):
    """Test files that no command which runs tests has in it."""
    typed = " ".join(
        step.typed for step in page.steps if isinstance(step, Command) and runs_tests(step.typed)
    )
    files = [step for step in page.steps if isinstance(step, File)]
    return [
        file
        for file in files
        if Path(file.name).name.startswith("test_") and Path(file.name).name not in typed
    ]
