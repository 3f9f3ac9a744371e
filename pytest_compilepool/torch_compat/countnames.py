# SPDX-License-Identifier: Apache-2.0
"""Which counters this torch has, read from its source files: a counter has no name before it first moves.

Nothing here imports torch. Where its source is not there to be read, nothing is known.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pytest_compilepool.torch_compat.counters import is_summed

_ROOMS = ("_dynamo", "_inductor", "_functorch")

# Their names are texts (why a graph broke), and torch hands the group on as an argument.
_FREE_TEXT = ("graph_break", "unimplemented")

_SUBSCRIPT = re.compile(r"(?<![A-Za-z0-9_])counters\[")
_LINES = re.MULTILINE | re.DOTALL
_ANY = ".+"


@dataclass
class Names:
    """What counters there are. literal: dotted names; patterns: regular expressions for dotted names.

    open: groups in which any name may appear.
    """

    literal: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)

    def know(self, name: str) -> bool:
        """Whether there can be a counter of this dotted name."""
        if name in self.literal or name.partition(".")[0] in self.open:
            return True
        return any(re.fullmatch(pattern, name, re.DOTALL) for pattern in self.patterns)

    @property
    def groups(self) -> set[str]:
        """The groups that have a name of their own."""
        return {name.partition(".")[0] for name in self.literal} | self.open


def torch_folder() -> Path | None:
    """Where torch's source is, or None without torch. Does not import it."""
    loaded = sys.modules.get("torch")
    spec = importlib.util.find_spec("torch") if loaded is None else loaded.__spec__
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def counter_names(folder: Path | None) -> Names:
    """All that is counted in `counters[group][name]`. folder: torch's, or None. Takes a tenth of a second."""
    found: set[tuple[str, str]] = {(re.escape(group), _ANY) for group in _FREE_TEXT if folder is not None}
    for text in _texts(folder):
        for group, name in _subscripts(text):
            groups = _resolve(group, text)
            names = _resolve(name, text) if name else set()
            found |= {(one, other) for one in groups - {_ANY} for other in names or {""}}
    return _sorted_out(found)


def metric_names(folder: Path | None) -> tuple[set[str], set[str]]:
    """Names of what `CompilationMetrics` sums, and of what Inductor's module `metrics` counts."""
    utils = _text(folder / "_dynamo" / "utils.py") if folder is not None else ""
    body = re.search(r"^class CompilationMetrics:.*?(?=^\S|^    @)", utils, _LINES)
    sums = {name for name, kind in _declared("    ", body[0] if body else "") if is_summed(name, kind)}
    module = _text(folder / "_inductor" / "metrics.py") if folder is not None else ""
    numbers = {name for name, kind in _declared("", module) if kind in ("", "int")}
    return sums | ({"compilations"} if sums else set()), numbers


def _declared(margin: str, text: str) -> Iterator[tuple[str, str]]:
    """(name, annotation or nothing) of what is set to a number or None at a margin."""
    for line in re.finditer(rf"^{margin}([a-z]\w*)(?:: ([^=\n]+?))? = (?:\d+|None)\b", text, re.MULTILINE):
        yield line[1], line[2] or ""


def _texts(folder: Path | None) -> Iterator[str]:
    for room in _ROOMS if folder is not None else ():
        for path in sorted((folder / room).rglob("*.py")):  # type: ignore[operator]
            text = _text(path)
            if "counters[" in text:
                yield text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _subscripts(text: str) -> Iterator[tuple[str, str]]:
    """The expressions in `counters[here][and here]`; the second may be missing."""
    for start in _SUBSCRIPT.finditer(text):
        group, end = _bracketed(text, start.end() - 1)
        yield group, _bracketed(text, end)[0] if text[end : end + 1] == "[" else ""


def _bracketed(text: str, opening: int) -> tuple[str, int]:
    """What stands between the bracket at `opening` and its partner, and where the text goes on."""
    depth = 0
    for at in range(opening, min(len(text), opening + 2000)):
        depth += (text[at] in "[(") - (text[at] in "])")
        if not depth:
            return text[opening + 1 : at], at + 1
    return "", opening + 1


def _resolve(expression: str, text: str) -> set[str]:
    """What an expression can come to, as regular expressions. text: the file, in which a variable is looked up."""
    tree = _parsed(expression)
    if isinstance(tree, ast.Name):
        values = [_parsed(value) for value in _assigned(tree.id, text)]
        return {one for value in values for one in _values(value)} or {_ANY}
    return set(_values(tree))


def _assigned(name: str, text: str) -> Iterator[str]:
    """The expressions that a file gives to a variable."""
    for found in re.finditer(rf"^[ \t]*{name}(?:: [^=\n]+)? = (?=\S)", text, re.MULTILINE):
        if text[found.end()] == "(":
            yield _bracketed(text, found.end())[0]
        else:
            yield text[found.end() :].partition("\n")[0]


def _parsed(expression: str) -> ast.expr | None:
    try:
        return ast.parse(f"({expression}\n)", mode="eval").body
    except SyntaxError:
        return None


def _values(tree: ast.expr | None) -> Iterator[str]:
    match tree:
        case ast.Constant(value=str() as text):
            yield re.escape(text)
        case ast.JoinedStr(values=parts):
            yield "".join(next(_values(part), _ANY) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from {one + other for one in _values(left) for other in _values(right)}
        case ast.IfExp(body=body, orelse=otherwise):
            yield from {*_values(body), *_values(otherwise)}
        case ast.Call(args=[*_, ast.Constant(value=str() as text)]):  # os.environ.get(..., "inductor")
            yield re.escape(text)
        case _:
            yield _ANY


def _sorted_out(found: set[tuple[str, str]]) -> Names:
    names = Names()
    for group in {group for group, _ in found}:
        keys = {key for one, key in found if one == group} - {""}
        fixed = {key for key in keys if _ANY not in key}
        if _ANY in group:
            names.patterns |= {rf"{group}\.{key}" for key in keys}
        elif not keys or (_ANY in keys and not fixed):
            names.open.add(_plain(group))
        else:
            # In a group that has names, a computed one is no reason to believe every name.
            names.patterns |= {rf"{group}\.{key}" for key in keys - fixed - {_ANY}}
        if _ANY not in group:
            names.literal |= {f"{_plain(group)}.{_plain(key)}" for key in fixed}
    return names


def _plain(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern)
