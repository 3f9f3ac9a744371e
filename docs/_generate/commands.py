# SPDX-License-Identifier: Apache-2.0
"""The command `compilepool`, from its parser: not from what argparse prints, which differs from Python to Python."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from unittest import mock

from _generate.writing import capital
from pytest_compilepool.cli import main

WIDTH = 72
"""Characters in a line of usage."""


class _Made(Exception):
    """The parser, as it is about to read arguments."""


def _whole() -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *arguments: object, **more: object) -> None:
        raise _Made(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            main.main([])
        except _Made as made:
            parser: argparse.ArgumentParser = made.args[0]
            return parser
    raise AssertionError("compilepool reads no arguments")


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The sub-commands of a command by name; none where it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _written(action: argparse.Action) -> str:
    """An argument as one writes it: `--cell FILE`, `CELL`."""
    value = str(action.metavar or (action.dest if not action.choices else "|".join(map(str, action.choices))))
    if not action.option_strings:
        return value
    takes = "" if action.nargs == 0 else f" {value if action.metavar or action.choices else value.upper()}"
    return f"{action.option_strings[-1]}{takes}"


def _in_usage(action: argparse.Action) -> str:
    """The same where it may be left out or repeated."""
    text = _written(action)
    if action.option_strings:
        return text if action.required else f"[{text}]"
    return {"*": f"[{text} ...]", "+": f"{text} [{text} ...]", "?": f"[{text}]"}.get(str(action.nargs), text)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Options before what stands at the end; neither --help nor sub-commands."""
    passed_over = (argparse._HelpAction, argparse._SubParsersAction)
    found = [action for action in parser._actions if not isinstance(action, passed_over)]
    return sorted(found, key=lambda action: not action.option_strings)


def usage(parser: argparse.ArgumentParser) -> str:
    """How it is called, in lines of at most WIDTH."""
    parts = [_in_usage(action) for action in _arguments(parser)]
    # What belongs together is not broken: it is joined by a character that textwrap does not break at.
    text = " ".join([parser.prog.replace(" ", "\0"), *(part.replace(" ", "\0") for part in parts)])
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * 4, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(lines).replace("\0", " ")


def _one(parser: argparse.ArgumentParser) -> list[str]:
    said = (parser.description or "").strip().rstrip(".")
    parts = [f"{capital(said)}{'' if said.endswith('?') else '.'}", f"```\n{usage(parser)}\n```"]
    lines = [
        f"- `{_written(action)}`: {(action.help or '').replace('%%', '%')}" for action in _arguments(parser)
    ]
    if lines:
        parts.append("\n".join(lines))
    for group in parser._mutually_exclusive_groups:
        names = [f"`{action.option_strings[-1]}`" for action in group._group_actions]
        parts.append(f"Only one of {', '.join(names)}.")
    if parser.epilog:
        # "Example: compilepool ...", perhaps with a word on where.
        parts.append(re.sub(r"(Example[^:]*): (compilepool .*)", r"\1: `\2`", parser.epilog.strip()))
    return parts


def command(page: Path, name: str) -> str:
    """One sub-command, and those below it."""
    parser = subcommands(_whole())[name]
    below = subcommands(parser)
    if not below:
        return "\n\n".join(_one(parser))
    parts = [capital((parser.description or "").partition("\n")[0])]
    for word, sub in below.items():
        parts += [f"### `{name} {word}`", *_one(sub)]
    return "\n\n".join(parts)
