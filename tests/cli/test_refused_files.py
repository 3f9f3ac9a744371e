# SPDX-License-Identifier: Apache-2.0
"""Files that are not there, or are something else: one sentence with the name of the file, the status of the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_compilepool.cli import asked
from pytest_compilepool.cli.main import main
from pytest_compilepool.matrix.cell import Cell

FILES = {
    "missing": None,
    "empty": b"",
    "words": b"no such thing",
    "binary": b"\xff\xfe\x00",
    "other": b'{"a": 1}',
    "list": b"[]",
}
COMMANDS = {
    "matrix": ["matrix", "FILE"],
    "compare": ["compare", "FILE", "FILE"],
    "merge": ["merge", "FILE", "--out", "made.json"],
    "expectations": ["expectations", "update", "FILE", "--file", "known.toml"],
    "bench pool": ["bench", "pool", "--from", "FILE"],
    "bench compile": ["bench", "compile", "--from", "FILE"],
    "bench vllm": ["bench", "vllm", "--from", "FILE"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "known.toml").touch()
    for name, content in FILES.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("name", [*FILES, "folder"])
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_told_in_one_sentence(here, capsys, command, name):
    assert main([name if word == "FILE" else word for word in COMMANDS[command]]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compilepool {command.split()[0]}: ")
    assert name in line
    if name in ("words", "other", "list"):
        assert "`compilepool run --cell FILE` has written" in line or "--json" in line


ENDLESS = {
    "pipe": "it is a pipe; allowed: a file",
    "device": "it is a device; allowed: a file",
    "large": "it is larger than ",
}
READ = {
    **{name: COMMANDS[name] for name in ("matrix", "compare", "merge", "expectations")},
    "its --file": ["expectations", "update", "cell.json", "--file", "FILE"],
    "run": ["run", "--list", "--expectations", "FILE"],
}


@pytest.mark.parametrize(
    ("command", "name"),
    [*((command, "pipe") for command in READ)]
    + [(command, name) for command in ("matrix", "run") for name in ("device", "large")],
)
def test_what_might_never_end_is_not_read(here, command, name):
    os.mkfifo(here / "pipe")
    (here / "device").symlink_to("/dev/zero")
    with open(here / "large", "wb") as file:
        file.truncate(2**40)
    (here / "cell.json").write_text(Cell("1", {}, "smoke", True, {}).to_text())
    # A process that can be ended, and that gets no memory for what it should not read.
    done = subprocess.run(
        [
            *(
                "sh",
                "-c",
                'ulimit -v 4000000; exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "pytest_compilepool.cli",
            ),
            *(name if word == "FILE" else word for word in READ[command]),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"{name}: cannot be read: {ENDLESS[name]}" in line


@pytest.mark.parametrize("name", ["folder", "nowhere/cell.json"])
def test_a_cell_that_cannot_be_written_is_told_before_torch_is_imported(here, capsys, monkeypatch, name):
    monkeypatch.setattr(asked, "_subject", lambda *_: pytest.fail("the pool was asked"))
    monkeypatch.setattr(asked, "_origin", lambda *_: pytest.fail("a process was started"))
    assert main(["run", "--cell", name]) == 4
    assert capsys.readouterr().err.startswith(f"compilepool run: --cell: '{name}' cannot be written: ")


LONG = "a" * 5000


@pytest.mark.parametrize("name", [LONG, LONG[:300], "a\0b"], ids=["5000", "300", "NUL"])
@pytest.mark.parametrize(
    "command",
    [
        ["mutants", "--list", "FILE"],
        ["expectations", "update", "cell.json", "--file", "FILE"],
        ["run", "--list", "--cell", "FILE"],
        ["run", "--list", "--expectations", "FILE"],
        ["matrix", "FILE"],
        ["compare", "FILE", "FILE"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have_is_told_in_one_sentence(here, capsys, command, name):
    (here / "cell.json").write_text(Cell("1", {}, "smoke", True, {}).to_text())
    assert main([name if word == "FILE" else word for word in command]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compilepool {command[0]}: ")
    assert repr(name)[1:50] in line or name[:50] in line


@pytest.mark.parametrize("number", ["9" * 5000, "10000"], ids=len)
def test_a_number_that_is_too_large_is_told_in_one_sentence(here, capsys, number):
    assert main(["run", "--list", "-n", number]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compilepool run: -n: '")
    assert line.endswith(" is not allowed; allowed: a whole number from 0 to 9999, or auto")
    assert len(line) < 300


BROKEN = "raise ImportError('libcudart.so.12: cannot open shared object file')\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("bench", "pool", "--runs=2"), 4),
        (("bench", "compile", "--workload=kernels"), 4),
        (("run", "--mode=smoke"), 4),
        (("doctor",), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_torch_that_cannot_be_imported_is_told_once(tmp_path: Path, command, status):
    pytest.importorskip("triton", reason="without it bench says that")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(BROKEN)
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.13.0'\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest_compilepool.cli", *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert said.count("torch 2.13.0 is installed, but cannot be imported: ImportError: libcudart") == 1
    assert "Traceback" not in said
    assert "round 1" not in said
