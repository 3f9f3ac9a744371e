# SPDX-License-Identifier: Apache-2.0
"""Small pieces of Markdown."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def title(page: Path) -> str:
    """The first heading of a page. Raises ValueError where there is none."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    raise ValueError(f"{page} has no heading")


def pages(page: Path, patterns: str) -> str:
    """Links to all pages that these patterns find, seen from the folder of this one."""
    found = [file for pattern in patterns.split() for file in sorted(page.parent.glob(pattern))]
    return "\n".join(
        f"- [{title(file)}]({file.relative_to(page.parent).as_posix()})"
        for file in found
        if file.suffix == ".md" and file != page
    )


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def more(page: Path, target: str) -> str:
    """A link to where more is said. target: path and perhaps anchor, seen from the page.

    Raises ValueError for an anchor that there is not, OSError for such a page.
    """
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve()
    name = title(file)
    if anchor:
        headings = re.findall(r"^##+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        names = [heading for heading in headings if slug(heading) == anchor]
        if not names:
            raise ValueError(f"{file} has no heading with the anchor {anchor}")
        name = names[0]
    return f"More: [{name}]({target})."


def doc(node: Any) -> str:
    """A docstring as Markdown, one line a paragraph. node: of a syntax tree, or an object."""
    text = (ast.get_docstring(node) if isinstance(node, ast.AST) else inspect.getdoc(node)) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def capital(text: str) -> str:
    """As it stands at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def code(words: Sequence[str]) -> str:
    """Words as names, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


def link(address: str) -> str:
    """An address as a link with a short name: `pytorch#1234` for a thread, else its last part."""
    parts = address.rstrip("/").split("/")
    thread = len(parts) > 3 and parts[-2] in ("issues", "pull") and parts[-1].isdecimal()
    name = f"{parts[-3]}#{parts[-1]}" if thread else parts[-1].partition("#")[0]
    return f"[{name.replace('_', chr(92) + '_')}]({address})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
