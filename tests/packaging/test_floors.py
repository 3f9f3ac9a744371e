# SPDX-License-Identifier: Apache-2.0
"""The house rules on imports, read from the source: each rule is also shown a breach that it must see."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pytest_compilepool"
FOLDERS = {PACKAGE: PACKAGE, "suites": f"{PACKAGE}.suites", "fixtures": f"{PACKAGE}.workloads"}

# A file imports only from its own floor or below. A new room gets its floor here.
FLOORS = {
    "records": 0,
    "places": 0,
    "regular": 0,
    "sessionrecord": 0,
    "exclusive": 0,
    "bytelocks": 0,
    "words": 0,
    "genuine": 0,
    "proctree": 0,
    "cgroups": 0,
    "resources": 0,
    "runrecord": 0,
    "targets": 0,
    "torch_compat": 0,
    "vllm_compat": 0,
    "pool": 1,
    "leaks": 1,
    "guard": 1,
    "counters": 1,
    "parity": 1,
    "phases": 1,
    "capture": 1,
    "conformance": 1,
    "fresh": 1,
    "isolation": 1,
    "measure": 1,
    "bench": 1,
    "matrix": 1,
    "vllm": 1,
    "report": 1,
    "workloads": 1,
    "newhooks": 2,
    "options": 2,
    "prestart": 2,
    "marks": 2,
    "fixtures": 2,
    "xdist": 2,
    "timeouts": 2,
    "leakwatch": 2,
    "session": 2,
    "sessionpools": 2,
    "sessionguard": 2,
    "room": 2,
    "suite": 2,
    "keys": 2,
    "plugin": 3,
    "cli": 3,
    "suites": 4,
}


def room_of(name: str) -> str:
    """The first name below the package, or "" for the package itself."""
    return [*name.split("."), ""][1]


@dataclass(frozen=True)
class Source:
    """One file: the name it is imported by, and its syntax tree."""

    name: str
    tree: ast.Module
    is_package: bool = False

    @property
    def room(self) -> str:
        return room_of(self.name)


Breach = tuple[int, str]
"""A line, and what is wrong with it."""


def sources() -> Iterator[Source]:
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            yield Source(name, ast.parse(path.read_text(encoding="utf-8"), str(path)), is_package)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that the file imports, wherever in it; relative names resolved."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = source.name.split(".")
                drop = node.level - source.is_package
                base = ".".join([*parents[: len(parents) - drop], *filter(None, [base])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def top(name: str) -> str:
    return name.split(".")[0]


def upward_imports(source: Source) -> Iterator[Breach]:
    if not source.room:
        return
    if source.room not in FLOORS:
        yield 1, f"{source.name} has no floor: give `{source.room}` one in FLOORS"
        return
    for line, name in imports(source):
        room = room_of(name)
        if top(name) == PACKAGE and FLOORS.get(room, 0) > FLOORS[source.room]:
            yield line, f"floor {FLOORS[source.room]} imports {name} from floor {FLOORS[room]}"


def private_torch_names(source: Source) -> Iterator[Breach]:
    # Jobs that run inside a worker may name them: nothing of ours runs there.
    if source.room in ("torch_compat", "workloads"):
        return
    private = re.compile(r"\btorch(\.\w+)*?\._(?!_)\w+")
    docstrings = {id(text) for text in _docstrings(source.tree)}
    for line, name in imports(source):
        if private.match(name):
            yield line, f"imports {name}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if private.fullmatch(dotted):
                yield node.lineno, f"names {dotted}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found = private.search(node.value)
            if found:
                yield node.lineno, f"has the text {found.group()}"


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Every string that stands as a statement of its own, so also those under a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def vllm_imports(source: Source) -> Iterator[Breach]:
    if source.room in ("vllm_compat", "vllm", "workloads"):
        return
    yield from ((line, f"imports {name}") for line, name in imports(source) if top(name) == "vllm")


def private_pytest_imports(source: Source) -> Iterator[Breach]:
    yield from ((line, f"imports {name}") for line, name in imports(source) if top(name) == "_pytest")


def torch_in_rooms_without_it(source: Source) -> Iterator[Breach]:
    if source.room in ("report", "cli"):
        yield from ((line, f"imports {name}") for line, name in imports(source) if top(name) == "torch")


RULES = [
    upward_imports,
    private_torch_names,
    vllm_imports,
    private_pytest_imports,
    torch_in_rooms_without_it,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_is_kept(rule: Callable[[Source], Iterator[Breach]]) -> None:
    found = [f"{source.name}:{line}: {what}" for source in sources() for line, what in rule(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (upward_imports, "pool.facade", "from pytest_compilepool.plugin import x"),
        (upward_imports, "pool.facade", "from pytest_compilepool import options"),
        (upward_imports, "records", "def f():\n    import pytest_compilepool.pool.facade"),
        (upward_imports, "pool.facade", "from .. import fixtures"),
        (upward_imports, "attic", "import os"),
        (private_torch_names, "pool.facade", "import torch._inductor.config"),
        (private_torch_names, "pool.facade", "from torch import _dynamo"),
        (private_torch_names, "cli.main", "def f(torch):\n    return torch._inductor.config"),
        (private_torch_names, "suites.test_pool", "import torch\nx = torch.utils._pytree.tree_map"),
        (private_torch_names, "leaks.config", "name = 'torch._dynamo.config'"),
        (vllm_imports, "pool.facade", "def f():\n    from vllm import envs"),
        (private_pytest_imports, "plugin", "from _pytest.config import Config"),
        (torch_in_rooms_without_it, "report.matrix", "def f():\n    import torch"),
        (torch_in_rooms_without_it, "cli.main", "from torch import version"),
    ],
)
def test_the_rule_sees_a_breach(rule: Callable[[Source], Iterator[Breach]], name: str, text: str) -> None:
    assert list(rule(Source(f"{PACKAGE}.{name}", ast.parse(text))))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (upward_imports, "plugin", "from pytest_compilepool.pool import facade"),
        (upward_imports, "pool.facade", "from pytest_compilepool.pool import state\nfrom . import state"),
        (private_torch_names, "torch_compat.pools", "import torch._inductor"),
        (private_torch_names, "workloads.jobs", "import torch._inductor"),
        (private_torch_names, "pool.facade", '"""What torch._inductor does."""\ntorch.__version__'),
        (vllm_imports, "vllm.lifecycle", "from vllm import envs"),
        (torch_in_rooms_without_it, "report.matrix", "from pytest_compilepool import torch_compat"),
    ],
)
def test_the_rule_lets_pass(rule: Callable[[Source], Iterator[Breach]], name: str, text: str) -> None:
    assert not list(rule(Source(f"{PACKAGE}.{name}", ast.parse(text))))
