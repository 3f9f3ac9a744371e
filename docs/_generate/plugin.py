# SPDX-License-Identifier: Apache-2.0
"""Fixtures, markers, hooks and options, from what defines them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from _generate.writing import capital, code, doc, more
from pytest_compilepool import marks
from pytest_compilepool.options import OPTIONS, Option
from pytest_compilepool.pool import policy

PACKAGE = Path(__file__).resolve().parents[2] / "pytest_compilepool"

FIXTURE_PAGES = {
    "compile_pool": "pool.md",
    "compile_pool_factory": "pool.md",
    "capture_guard": "captures.md",
    "compile_counters": "counters.md",
    "compile_phases": "phases.md",
    "compile_parity": "parity.md",
    "compile_target": "offline.md",
    "vllm_compile_phases": "../how-to/vllm.md#in-tests",
    "vllm_engine": "../how-to/vllm.md#in-tests",
    "compilepool_feature": "conformance.md",
}
"""Where more is said about a fixture, seen from the reference."""

OPTION_PAGES = {
    "processes": "processes.md",
    "prestart": "pool.md#started-ahead",
    "spare": "pool.md#started-ahead",
    "prime": "pool.md#started-ahead",
    "end-timeout": "../how-to/endings.md",
    "exclusive-timeout": "../how-to/endings.md#a-test-that-wants-the-machine-for-itself",
    "fresh-timeout": "phases.md",
    "caches": "../how-to/endings.md#pytest-xdist",
    "gpus": "../how-to/endings.md#pytest-xdist",
    "leaks": "leaks.md",
    "leak-grace": "leaks.md",
    "write-counters": "counters.md#baselines",
    "mode": "features.md",
    "group": "features.md",
    "requirements": "../how-to/conformance.md#another-pool",
    "cell": "cell.md",
    "expectations": "expectations.md",
}
"""Likewise about an option."""

VARIABLES = {
    "processes": (policy.THREADS_VARIABLE, policy.VLLM_VARIABLE),
    "start-method": (policy.START_VARIABLE,),
}
"""The variables of the environment that count where an option says nothing."""

OVERRIDDEN = (
    "compile_pool_processes",
    "compile_pool_start_method",
    "compile_pool_ready_timeout",
    "compile_cache_folder",
)
"""The fixtures that are there to be overridden."""


def _functions(file: Path) -> Iterator[tuple[ast.FunctionDef, str]]:
    """The functions of a file that anybody may name, with their decorators as one text."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node, " ".join(ast.unparse(decorator) for decorator in node.decorator_list)


def fixtures(page: Path, name: str) -> str:
    """Those of one file; `overridden`: the small ones that a project may override."""
    parts = []
    for node, decorators in _functions(
        PACKAGE / "fixtures" / f"{'pools' if name == 'overridden' else name}.py"
    ):
        if not decorators.startswith("pytest.fixture") or (node.name in OVERRIDDEN) != (name == "overridden"):
            continue
        scope = re.search(r"scope='(\w+)'", decorators)
        given = re.sub(r"^Iterator\[(.*)\]$", r"\1", ast.unparse(node.returns) if node.returns else "None")
        parts += [
            f"### `{node.name}`",
            f"Scope: {scope[1] if scope else 'function'}. Gives: `{given}`.",
            doc(node),
        ]
        if node.name in FIXTURE_PAGES:
            parts.append(more(page, FIXTURE_PAGES[node.name]))
    return "\n\n".join(parts)


def marker(page: Path, name: str) -> str:
    """One marker: its arguments with their defaults, and what its docstring says of them."""
    (function,) = (one for one in marks.MARKERS if one.__name__ == name)
    arguments = ", ".join(
        one.name if one.default is one.empty else f"{one.name}={one.default!r}"
        for one in inspect.signature(function).parameters.values()
    )
    first, _, rest = doc(function).partition("\n\n")
    return (
        f"```python\n@pytest.mark.{name}({arguments})\n```\n\n{capital(first.partition('): ')[2])}\n\n{rest}"
    )


def hooks(page: Path) -> str:
    """Every hook: signature and docstring."""
    parts = []
    for node, decorators in _functions(PACKAGE / "newhooks.py"):
        returns = ast.unparse(node.returns) if node.returns else "None"
        parts.append(f"## `{node.name}`")
        parts.append(f"```python\ndef {node.name}({ast.unparse(node.args)}) -> {returns}\n```")
        parts.append(doc(node) + (" The first answer counts." if "firstresult=True" in decorators else ""))
    return "\n\n".join(parts)


def options(page: Path) -> str:
    """Every option of the plugin."""
    return "\n\n".join(part for option in OPTIONS for part in _option(page, option))


def _option(page: Path, option: Option) -> Iterator[str]:
    yield f"## `{option.flag}`"
    yield option.help + "."
    underlined = option.name.replace("-", "_")
    facts = [f"- Allowed: {option.allowed}" + ("; the flag takes no value" if option.switch else "")]
    if option.default:
        facts.append(f"- Default: {option.default}")
    facts.append(f"- Ini option: `{option.ini}`")
    if option.name in VARIABLES:
        facts.append(f"- Environment: {code(VARIABLES[option.name])}")
    if underlined in inspect.signature(marks.compilepool).parameters:
        facts.append(f"- Marker: `@pytest.mark.compilepool({underlined}=...)`")
    if f"compile_pool_{underlined}" in OVERRIDDEN:
        facts.append(f"- Fixture to override: `compile_pool_{underlined}`")
    yield "\n".join(facts)
    if option.name in OPTION_PAGES:
        yield more(page, OPTION_PAGES[option.name])
