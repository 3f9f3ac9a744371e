# SPDX-License-Identifier: Apache-2.0
"""What runs the pages, on pages made for it: what is wrong in one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "markdown_it", reason="reading the pages needs markdown-it-py, of the dependency group `test`"
)

from blocks import Command, File, read_page
from shell import Shell, difference


@pytest.fixture
def page(tmp_path):
    def read(text):
        (tmp_path / "page.md").write_text(text)
        return read_page(tmp_path / "page.md")

    return read


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "folder").mkdir()
    return Shell(tmp_path / "folder", Path(sys.executable).parent, tmp_path)


def test_files_and_commands_in_their_order(page):
    read = page(
        "<!-- page: in a clone -->\n\n```python\n# test_a.py\nx = 1\n```\n\nThen\n\n"
        "<!-- run: exit=1 limit=7 -->\n```console\n$ one\n$ two \\\n  more\nanswer\n```\n"
    )
    assert read.traits == {"in a clone"}
    assert read.steps == [
        File(3, "test_a.py", "# test_a.py\nx = 1\n"),
        Command(12, "one", "", 0, 7.0),
        Command(13, "two \\\n  more", "answer", 1, 7.0),
    ]
    assert (read.wrong, read.not_run) == ([], [])


@pytest.mark.parametrize(
    "block",
    [
        "```python\nx = 1\n```",
        "```\nwords\n```",
        "    indented",
        "```console\nwords\n```",
        "```text\n# a.txt\n```",
    ],
)
def test_what_cannot_be_run_has_to_say_why(page, block):
    assert len(page(block).wrong) == 1
    assert len(page(f"<!-- not run: other -->\n\nwords\n\n{block}").wrong) == 1
    told = page(f"<!-- not run: it needs a GPU -->\n{block}")
    assert (told.wrong, [reason for _, reason in told.not_run]) == ([], ["it needs a GPU"])


def test_what_is_generated_is_not_run(page):
    read = page(
        "<!-- generated: a -->\n\n```python\nx = 1\n```\n\n<!-- end -->\n\n```{toctree}\na\n```\n\n```python\nx = 1\n```\n"
    )
    assert [told.partition(":")[0] for told in read.wrong] == ["line 13"]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- generated: a -->\n\nwords\n",  # ends nowhere: nothing below it would be run
        "<!-- generated: a -->\n<!-- end -->\n<!-- generated: b -->\n",
        "```{code-block} console\n$ false\n```",
        "<div>\n```console\n$ false\n```\n</div>",
        "<pre>\n$ false\n</pre>",
        "<!-- runs: exit=1 -->\n```console\n$ false\n```",
        "<!-- run: exit=1 -->\n```python\n# a.py\n```",
        "```python\n```",
        "```python\n# ../a.py\n```",
        "```console\n```",
    ],
)
def test_nothing_is_left_out_by_an_oversight(page, text):
    assert page(text).wrong


def test_an_unknown_setting_is_told(page):
    assert "exits=1" in page("<!-- run: exits=1 -->\n```console\n$ true\n```").wrong[0]


def test_an_unknown_place_is_told(page):
    read = page("<!-- page: in a clown -->\n\n<!-- page: beside a clone -->")
    assert "in a clown" in read.wrong[0]
    assert read.traits == {"beside a clone"}


def test_it_is_one_shell(shell, tmp_path):
    assert shell.type(Command(1, "mkdir below && cd below && export A=b", "")) == (0, "")
    assert shell.type(Command(2, 'echo "$A" $(basename "$PWD"); false', "")) == (1, "b below\n")
    _, printed = shell.type(Command(3, "env", ""))
    assert "PYTEST_CURRENT_TEST" not in printed


def test_a_failure_before_a_pipe_is_one(shell):
    assert shell.type(Command(1, "false | cat", ""))[0] == 1


@pytest.mark.parametrize("typed", ["false; echo on", "for x in 1 2; do test $x = 2; done", "cd nowhere; pwd"])
def test_a_failure_in_the_middle_is_one(shell, typed):
    assert shell.type(Command(1, typed, ""))[0] != 0


def test_what_was_set_before_a_failure_stays(shell):
    shell.type(Command(1, "export SET_HERE=yes; false", ""))
    assert shell.type(Command(1, "echo $SET_HERE", "")) == (0, "yes\n")


def test_what_takes_too_long_is_ended(shell):
    assert shell.type(Command(1, "echo begun; sleep 600", "", limit=0.5)) == (-1, "begun\n")
    assert shell.left() == []


def test_what_it_leaves_is_found(shell):
    start = "Popen(['sleep', '600'], start_new_session=True, stdout=-3, stderr=-3)"
    _, printed = shell.type(Command(1, f'python -c "from subprocess import *; print({start}.pid)"', ""))
    try:
        assert any("sleep 600" in line for line in shell.left())
    finally:
        subprocess.run(["kill", printed.strip()], check=True, timeout=60)


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("4 passed in 0.1s", "4 passed in 12.34s", True),
        ("4 passed in 0.1s", "4 passed in 72.34s (0:01:12)", True),
        ("4 passed in 0.1s", "3 passed in 0.1s", False),
        ("=== a ===", "======== a =====", True),
        ("sidecar pid 12", "sidecar pid 99", True),
        ("first\n...\nlast", "first\nsomething\nmore\nlast", True),
        ("first\n...\nlast", "first\nsomething\nmore", False),
        ("a test ... passed", "a test of mine passed", True),
        ("a test ... passed", "a test\nof mine\n2 passed", False),
        ("first\nlast", "first\n\n  last\n", True),
        ("first\nlast", "first last", False),
        ("1 + 1 (a)", "1 + 1 (a)", True),
        ("torch 2.13.0", "torch 2.13.1", False),
        ("", "anything", True),
    ],
)
def test_difference(wanted, printed, same):
    assert (difference(wanted, printed) == "") == same
