# SPDX-License-Identifier: Apache-2.0
"""What the pages name in their sentences exists: commands, their options, pytest's, variables, names of Python."""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip(
    "markdown_it", reason="reading the pages needs markdown-it-py, of the dependency group `test`"
)

from markdown_it import MarkdownIt
from test_reference import ROOT, commands, pytest_says

from pytest_compilepool.cli.main import COMMANDS
from pytest_compilepool.cli.refusal import Parser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]


def spans(page: Path) -> list[str]:
    """The code within its sentences."""
    found = []
    for block in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        found += [child.content for child in block.children or [] if child.type == "code_inline"]
    return found


@functools.cache
def options(name: str) -> dict[str, set[str]]:
    parser = Parser(prog=f"compilepool {name}")
    importlib.import_module(f"pytest_compilepool.cli.{name}").add_arguments(parser)
    return commands(parser, name)


@functools.cache
def of_pytest() -> set[str]:
    return {*re.findall(r"--compilepool-[a-z-]+", pytest_says("--help"))}


@functools.cache
def code() -> str:
    """All that is no page: what reads a variable is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    files = [ROOT / name for name in listed.stdout.split("\0") if name and not name.endswith((".md", ".svg"))]
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())


def made_up(span: str) -> list[str]:
    """What is in it that does not exist."""
    wrong = [flag for flag in re.findall(r"--compilepool-[a-z-]+", span) if flag not in of_pytest()]
    wrong += [name for name in re.findall(r"\bCOMPILEPOOL_[A-Z_]+", span) if name not in code()]
    if typed := re.match(r"compilepool ([a-z]\w*)(?: ([a-z]\w*))?(.*)", span):
        name, below, rest = typed.groups()
        if name not in COMMANDS:
            return [*wrong, f"compilepool {name}"]
        known = options(name)
        ours = known.get(f"{name} {below}", set()).union(
            *([] if f"{name} {below}" in known else known.values())
        )
        flags = re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest.partition(" -- ")[0])
        wrong += [f"compilepool {name} {flag}" for flag in flags if flag not in ours]
    if re.fullmatch(r"pytest_compilepool(\.\w+)+", span) and not exists(span):
        wrong.append(span)
    return wrong


def exists(dotted: str) -> bool:
    module, *names = dotted.split(".")
    found: object = importlib.import_module(module)
    for name in names:
        module = f"{module}.{name}"
        if not hasattr(found, name):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                return False
        found = getattr(found, name)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_nothing_is_made_up(page):
    assert [(span, wrong) for span in spans(page) if (wrong := made_up(span))] == []


@pytest.mark.parametrize(
    ("span", "wrong"),
    [
        ("--compilepool-nothing=2", ["--compilepool-nothing"]),
        ("compilepool dance", ["compilepool dance"]),
        ("compilepool run --cells x", ["compilepool run --cells"]),
        ("compilepool bench pool --workload x", ["compilepool bench --workload"]),
        ("COMPILEPOOL_" + "NOTHING=1", ["COMPILEPOOL_" + "NOTHING"]),
        ("pytest_compilepool.nothing", ["pytest_compilepool.nothing"]),
        ("compilepool run --mode smoke --cell here.json -- -k x", []),
        ("compilepool bench pool --processes 2,4 --runs 1", []),
        ("pytest_compilepool.pool.facade.CompilePool", []),
    ],
)
def test_what_is_made_up_is_noticed(span, wrong):
    assert made_up(span) == wrong
