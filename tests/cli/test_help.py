# SPDX-License-Identifier: Apache-2.0
"""The help of every command fits one screen, and its example is one that the command takes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from pytest_compilepool.cli.main import COMMANDS, make_parser

LINES, COLUMNS = 24, 80


def every(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """It, and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from every(sub)


PARSERS = {parser.prog: parser for parser in every(make_parser())}


@pytest.fixture(autouse=True)
def screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def test_these_are_all_commands():
    benches = [f"bench {name}" for name in ("pool", "compile", "vllm")]
    assert set(PARSERS) == {"compilepool", *(f"compilepool {name}" for name in [*COMMANDS, *benches])}


@pytest.mark.parametrize("name", PARSERS)
def test_it_fits_one_screen(name):
    lines = PARSERS[name].format_help().splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) < COLUMNS


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_says_what_it_is_for(name):
    for action in PARSERS[name]._actions:
        assert action.help, action


@pytest.mark.parametrize("name", PARSERS)
def test_its_example_is_taken(name):
    """By the parser; what is in the files is another matter."""
    last = PARSERS[name].format_help().splitlines()[-1]
    assert last.startswith("Example")
    command, *arguments = shlex.split(last.partition(": ")[2])
    assert command == "compilepool"
    assert " ".join([command, *arguments]).startswith(name)
    make_parser().parse_args(arguments)


@pytest.mark.parametrize("name", PARSERS)
def test_what_it_does_not_know_is_refused_in_one_sentence(name, capsys):
    given = {"compare": ["a", "b"], "merge": ["a", "--out", "b"], "matrix": ["a"]}
    given["expectations"] = ["update", "a", "--file", "b"]
    path = name.split()[1:] or ["reap"]
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(
            [*path, *given.get(path[0], []), *(["pool"] if path == ["bench"] else []), "--jsom"]
        )
    assert ended.value.code in (2, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{' '.join(['compilepool', *path])}" in line
    assert "there is no option --jsom" in line
    assert line.endswith("--help)")


def test_a_near_miss_is_told(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["doctor", "--mesure"])
    assert capsys.readouterr().err == (
        "compilepool doctor: there is no option --mesure; did you mean --measure? (see compilepool doctor --help)\n"
    )
