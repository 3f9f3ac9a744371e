# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of a page, as a reader meets them: files to write, commands to type and what they answer.

How a page is written, so that it can be run from its first block to its last in one folder:

- a block whose first line is `# NAME` (python, toml, ini, yaml; `; NAME` in ini) is a file of that name;
- a `console` block has commands (`$ ...`, a backslash continues a line) and below each what it prints: `...`
  stands for anything, a number with a decimal point for any, likewise the number after "pid"; how many spaces,
  dashes and the like there are in a row does not matter; a command with nothing below it may print what it likes;
- test files that no command names are run with pytest after the last block, and must pass;
- a comment straight above a block says what cannot be seen: `<!-- run: exit=1 limit=300 -->` (the status that
  its last command ends with, the seconds that each may take), `<!-- not run: REASON -->`;
- between `<!-- generated: NAME -->` and `<!-- end -->` nothing is run: test_reference.py compares it with the code;
- a comment anywhere says where it is run: `<!-- page: in a clone -->` (a copy of what git tracks),
  `<!-- page: beside a clone -->` (the copy is the folder `pytest-compilepool` in it; else an empty folder),
  `<!-- page: fresh environment -->` (a Python with nothing installed; else the one of the tests).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

TRAITS = ("in a clone", "beside a clone", "fresh environment")
FILES = ("python", "toml", "ini", "yaml")
_COMMENT = re.compile(r"<!--\s*(run|not run|page):\s*(.*?)\s*-->", re.DOTALL)
_TABLE_OF_CONTENTS = "{toctree}"
_GENERATED, _END = "<!-- generated: ", "<!-- end -->"
_NAME = re.compile(r"[#;] ([\w./-]+\.\w+)(:.*)?$", re.MULTILINE)
_SETTING = re.compile(r"(exit|limit)=(\d+)")


@dataclass(frozen=True)
class Command:
    """One command and what it prints; exit_status of the last of a block may be another than 0; limit in seconds."""

    line: int
    typed: str
    prints: str
    exit_status: int = 0
    limit: float = 120.0


@dataclass(frozen=True)
class File:
    line: int
    name: str
    text: str


@dataclass
class Page:
    """steps in their order; not_run: line and reason; wrong: what cannot be run and does not say why."""

    path: Path
    steps: list[Command | File] = field(default_factory=list)
    not_run: list[tuple[int, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    traits: set[str] = field(default_factory=set)


def read_page(path: Path) -> Page:
    """path: a Markdown file. Never raises for what is in it: `wrong` says it."""
    page = Page(path)
    above: dict[str, str] = {}
    generated = False
    for token in MarkdownIt("commonmark").parse(path.read_text()):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block":
            above = dict(_COMMENT.findall(token.content))
            generated = _GENERATED in token.content or (generated and _END not in token.content)
            _look_for_lost_blocks(page, line, token.content)
            if "page" in above:
                _set(page, line, above.pop("page"))
        elif generated or (token.type == "fence" and token.info.startswith(_TABLE_OF_CONTENTS)):
            above = {}
        elif token.type in ("fence", "code_block"):
            _take(page, line, token.info.strip(), token.content, above)
            above = {}
        elif token.nesting >= 0 and token.type != "inline":
            above = {}
    if generated:
        page.wrong.append(f"a block of {_GENERATED}...--> has no {_END}")
    return page


def _look_for_lost_blocks(page: Page, line: int, html: str) -> None:
    """What stands in HTML is no block, so it would be run by nobody; and a comment of ours that is misspelt does nothing."""
    if "```" in html or "<pre" in html:
        page.wrong.append(f"line {line}: a block within HTML is never run")
    for told in re.findall(r"<!--\s*([\w ]*run[\w ]*):", html):
        if told.strip() not in ("run", "not run"):
            page.wrong.append(f"line {line}: <!-- {told}: -->: known are run, not run, page")


def _set(page: Page, line: int, trait: str) -> None:
    if trait in TRAITS:
        page.traits.add(trait)
    else:
        page.wrong.append(f"line {line}: <!-- page: {trait} -->: known are {', '.join(TRAITS)}")


def _take(page: Page, line: int, language: str, text: str, above: dict[str, str]) -> None:
    if "not run" in above:
        page.not_run.append((line, above["not run"]))
    elif language == "console":
        page.steps += _commands(page, line, text, above.get("run", ""))
    elif language in FILES and (named := _NAME.match(text)):
        page.steps.append(File(line, named[1], text))
        if "run" in above or ".." in named[1] or named[1].startswith("/"):
            page.wrong.append(f"line {line}: a file is written below the folder, and not run")
    else:
        page.wrong.append(
            f"line {line}: this block ({language or 'no language'}) is neither a file with its name in the first "
            "line nor a console block: say <!-- not run: REASON --> straight above it if it cannot be run"
        )


def _commands(page: Page, line: int, text: str, settings: str) -> list[Command]:
    given = {name: int(value) for name, value in _SETTING.findall(settings)}
    if _SETTING.sub("", settings).strip():
        page.wrong.append(f"line {line}: <!-- run: {settings} -->: only exit=N and limit=SECONDS are known")
    found: list[tuple[int, str, list[str]]] = []
    for number, row in enumerate(text.splitlines(), line + 1):
        if found and not found[-1][2] and found[-1][1].endswith("\\"):
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{row}", [])
        elif row.startswith("$ "):
            found.append((number, row[2:], []))
        elif found:
            found[-1][2].append(row)
        else:
            page.wrong.append(f"line {number}: output before the first command of its console block")
    if not text.strip():
        page.wrong.append(f"line {line}: a console block without a command")
    limit = float(given.get("limit", Command.limit))
    commands = [Command(number, typed, "\n".join(prints), 0, limit) for number, typed, prints in found]
    if commands and "exit" in given:
        last = commands[-1]
        commands[-1] = Command(last.line, last.typed, last.prints, given["exit"], limit)
    return commands
