# SPDX-License-Identifier: Apache-2.0
"""Words of the command line that are refused whatever else was asked for; an empty one is a variable that is not set."""

from __future__ import annotations

import pytest

from pytest_compilepool.cli.main import main
from pytest_compilepool.matrix.cell import Cell

BENCHES = {
    "pool": ["processes", "runs", "idle", "limit", "prime", "target"],
    "compile": ["processes", "runs", "workload", "kernels", "limit", "prime", "target"],
    "vllm": ["processes", "runs", "limit"],
}
EMPTY = [
    ["matrix", ""],
    ["merge", "", "--out", "made.json"],
    ["compare", "", ""],
    ["run", "--list", "--shard", ""],
    ["run", "--list", "--attempts", ""],
    ["run", "--list", "--requirements", ""],
    ["expectations", "update", "folder", "--file", "known.toml", "--suite", ""],
    *(["bench", name, f"--{option}", ""] for name, options in BENCHES.items() for option in options),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cell.json").write_text(Cell("1", {}, "smoke", True, {}).to_text())


def refused(capsys, arguments: list[str]) -> str:
    """The sentence."""
    assert main(arguments) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compilepool {arguments[0]}: ")
    return line


@pytest.mark.parametrize("arguments", EMPTY, ids=" ".join)
def test_an_empty_word_is_not_the_default(capsys, arguments):
    line = refused(capsys, arguments)
    assert "''" in line
    options = [
        word for word in arguments if word.startswith("--") and word not in ("--list", "--out", "--file")
    ]
    assert all(option in line for option in options)


@pytest.mark.parametrize(
    "word", ["abc", "0", "-1", "nan", "1.5", "10", "٣", "9" * 5000], ids=lambda word: word[:9]
)
@pytest.mark.parametrize("more", [[], ["--list"]], ids=["", "list"])
def test_attempts_are_checked_before_anything_is_listed_or_tried(capsys, more, word):
    line = refused(capsys, ["run", *more, f"--attempts={word}"])
    assert line.startswith(f"compilepool run: --attempts: '{word[:100]}")
    assert line.endswith(" is not allowed; allowed: a whole number from 1 to 9")
