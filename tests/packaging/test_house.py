# SPDX-License-Identifier: Apache-2.0
"""The house rules on size and on docstrings, read from the source: each rule is also shown a breach that it must see.

A file or a function that is longer for a reason has a comment `# Long: <reason>` in its first lines, or (a function)
right above it. A reason that is not needed any more is a breach, too.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FILE_LINES = 400
FUNCTION_LINES = 50
HEAD = 5  # lines of a file in which the reason may stand

REASON = re.compile(r"\s*# Long: \S.{8,}")

# What users import, or get from a fixture: modules, or packages with all that is in them.
PUBLIC = (
    "fixtures",
    "pytest_compilepool/capture.py",
    "pytest_compilepool/conformance/bench.py",
    "pytest_compilepool/conformance/feature.py",
    "pytest_compilepool/counters/baseline.py",
    "pytest_compilepool/counters/conditions.py",
    "pytest_compilepool/counters/counts.py",
    "pytest_compilepool/counters/errors.py",
    "pytest_compilepool/counters/expectation.py",
    "pytest_compilepool/counters/facade.py",
    "pytest_compilepool/counters/source.py",
    "pytest_compilepool/fixtures",
    "pytest_compilepool/fresh/callables.py",
    "pytest_compilepool/leaks/base.py",
    "pytest_compilepool/newhooks.py",
    "pytest_compilepool/parity/check.py",
    "pytest_compilepool/parity/errors.py",
    "pytest_compilepool/parity/facade.py",
    "pytest_compilepool/parity/offline.py",
    "pytest_compilepool/phases.py",
    "pytest_compilepool/pool/core.py",
    "pytest_compilepool/pool/errors.py",
    "pytest_compilepool/pool/facade.py",
    "pytest_compilepool/records.py",
    "pytest_compilepool/vllm/engines",
    "pytest_compilepool/vllm/events.py",
    "suites/requirements.py",
)


def tracked() -> list[str]:
    """Every .py file of the project, by path from its root."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git, or no checkout: which files are the project's is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).exists()]


def too_long(text: str) -> Iterator[str]:
    """What is wrong with the lengths of one file."""
    lines = text.splitlines()
    yield from _judged("the file", len(lines), FILE_LINES, lines[:HEAD])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            above = lines[first - 2 : first - 1] if first > 1 else []
            # Up to the first statement after the docstring.
            body = node.body[ast.get_docstring(node) is not None :] or node.body
            inside = lines[first - 1 : body[0].lineno - 1]
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield from _judged(f"line {node.lineno}: {node.name}", length, FUNCTION_LINES, above + inside)


def _judged(what: str, length: int, limit: int, first_lines: list[str]) -> Iterator[str]:
    reason = any(REASON.fullmatch(line) for line in first_lines)
    if length > limit and not reason:
        yield f"{what} has {length} lines, more than {limit}: split it by purpose, or say why with # Long: <reason>"
    if length <= limit and reason:
        yield f"{what} has {length} lines: the reason for more than {limit} is not needed any more"


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in tracked()}


def test_nothing_is_long_without_a_reason(files: dict[str, str]) -> None:
    found = [f"{path}: {what}" for path, text in files.items() for what in too_long(text)]
    assert not found, "\n".join(found)


def function(length: int, *, above: str = "", first: str = "", decorator: str = "") -> str:
    lines = ["def f():", *([f"    {first}"] if first else [])]
    body = ["    pass"] * (length - len(lines))
    return "\n".join([*[""] * HEAD, *filter(None, (above, decorator)), *lines, *body])


@pytest.mark.parametrize(
    "text",
    [
        "pass\n" * 401,
        "# Long: too soon\n" + "pass\n" * 400,  # eight letters are no reason
        "pass\n" * 5 + "# Long: told where nobody looks\n" + "pass\n" * 400,
        "# Long: it was long once\n" + "pass\n" * 10,
        function(51),
        function(51, decorator="@staticmethod"),
        "class A:\n" + "\n".join(f"    {line}" for line in function(51).splitlines()),
        function(20, above="# Long: it was long once"),
        function(51, above="# Long:"),
        function(60, first="pass\n    # Long: told where nobody looks"),
    ],
)
def test_a_breach_of_length_is_seen(text: str) -> None:
    assert list(too_long(text))


@pytest.mark.parametrize(
    "text",
    [
        "pass\n" * 400,
        "# SPDX\n# Long: one table, which is read as one\n" + "pass\n" * 500,
        function(50),
        function(60, above="# Long: one story that is told in order"),
        function(60, above="# Long: one story that is told in order", decorator="@staticmethod"),
        function(60, first="# Long: one story that is told in order"),
        function(60, first='"""Tells."""\n    # Long: one story that is told in order'),
    ],
)
def test_what_may_be_so_long(text: str) -> None:
    assert not list(too_long(text))


def undocumented(text: str) -> Iterator[str]:
    """Public functions, classes, methods without a docstring; one that overrides another of its file may be without."""
    tree = ast.parse(text)
    if not ast.get_docstring(tree):
        yield "the module"
    told = {
        member.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, ast.FunctionDef) and ast.get_docstring(member)
    }
    yield from _undocumented(tree, "", frozenset(told))


def _undocumented(node: ast.Module | ast.ClassDef, prefix: str, inherited: frozenset[str]) -> Iterator[str]:
    for member in node.body:
        if not isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        overrides = isinstance(node, ast.ClassDef) and node.bases and member.name in inherited
        if not (member.name.startswith("_") or ast.get_docstring(member) or overrides):
            yield f"line {member.lineno}: {prefix}{member.name}"
        if isinstance(member, ast.ClassDef) and not member.name.startswith("_"):
            yield from _undocumented(member, f"{member.name}.", inherited)


def test_whatever_users_import_is_documented() -> None:
    found = []
    for name in PUBLIC:
        path = ROOT / name
        assert path.exists(), f"{name} is not there any more: PUBLIC names it"
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if not file.name.startswith("_") or file.name == "__init__.py":
                text = file.read_text(encoding="utf-8")
                found += [f"{file.relative_to(ROOT)}: {what}" for what in undocumented(text)]
    assert not found, "without a docstring:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        '"""A."""\ndef f(): pass',
        '"""A."""\nclass A: pass',
        '"""A."""\nclass A:\n    """B."""\n    @property\n    def f(self): return 1',
        '"""A."""\nclass A(Base):\n    """B."""\n    def f(self): return 1',
    ],
)
def test_a_missing_docstring_is_seen(text: str) -> None:
    assert list(undocumented(text))


def test_what_is_private_or_told_above_needs_none() -> None:
    text = (
        '"""A."""\ndef _f(): pass\nclass A:\n    """B."""\n    def __init__(self): pass\n'
        '    def f(self):\n        """C."""\nclass B(A):\n    """D."""\n    def f(self): pass'
    )
    assert not list(undocumented(text))


def test_no_two_test_files_have_one_name(files: dict[str, str]) -> None:
    """pytest imports them by their name: of two, the second is not collected by a process that has the first."""
    names = [
        Path(path).name for path in files if path.startswith("tests/") and Path(path).name.startswith("test_")
    ]
    assert sorted(names) == sorted(set(names))
