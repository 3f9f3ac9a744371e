# SPDX-License-Identifier: Apache-2.0
"""The compiler that keeps what it has made: each C++ kernel is compiled once a run. No vLLM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from pytest_compilepool.suites import vllm_compiler

FAKE = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
    *--version*) echo "a compiler, version 1"; exit 0;;
    *-Dfails*) echo "it does not compile" >&2; exit 3;;
    *-Dkilled*) kill -9 $$;;
    *-Dnothing*) exit 0;;
esac
while [ $# -gt 0 ]; do
    case "$1" in
        -o) out=$2; shift;;
        *.cpp) text=$(cat "$1");;
    esac
    shift
done
echo "compiled: $text" > "$out"
"""


@pytest.fixture
def compiler(tmp_path):
    """A compiler that writes down how it was called: its path, and a function that says how often that was."""
    calls = tmp_path / "calls"
    program = tmp_path / "a compiler"
    program.write_text(FAKE.format(log=f"'{calls}'"))
    program.chmod(0o755)
    (tmp_path / "a.cpp").write_text("int a;")
    return str(program), lambda: len(calls.read_text().splitlines()) if calls.exists() else 0


@pytest.fixture
def ask(tmp_path):
    """Ask the one that keeps, for this compiler, with these arguments."""

    def asked(compiler, *arguments):
        command = [sys.executable, "-S", "-E", vllm_compiler.__file__, str(tmp_path / "kept"), compiler]
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return asked


def test_the_same_is_copied(compiler, ask, tmp_path):
    program, calls = compiler
    assert ask(program, "-O3", "a.cpp", "-o", "a.so").returncode == 0
    # Whatever the files are called.
    shutil.copyfile(tmp_path / "a.cpp", tmp_path / "b.cpp")
    assert ask(program, "-O3", str(tmp_path / "b.cpp"), "-o", str(tmp_path / "b.so")).returncode == 0
    assert calls() == 1
    assert (tmp_path / "b.so").read_text() == (tmp_path / "a.so").read_text() == "compiled: int a;\n"
    assert os.access(tmp_path / "b.so", os.X_OK)


def test_other_flags_another_source_or_another_compiler_are_compiled(compiler, ask, tmp_path):
    program, calls = compiler
    ask(program, "-O3", "a.cpp", "-o", "a.so")
    ask(program, "-O2", "a.cpp", "-o", "a.so")
    ask(program, "-O3", "-g", "a.cpp", "-o", "a.so")
    assert calls() == 3
    (tmp_path / "a.cpp").write_text("int b;")
    ask(program, "-O3", "a.cpp", "-o", "a.so")
    assert calls() == 4
    assert (tmp_path / "a.so").read_text() == "compiled: int b;\n"
    shutil.copy(program, tmp_path / "another")
    ask(str(tmp_path / "another"), "-O3", "a.cpp", "-o", "a.so")
    assert calls() == 5
    assert len(list((tmp_path / "kept").iterdir())) == 5


def test_a_compile_that_fails_has_its_status_and_is_not_kept(compiler, ask, tmp_path):
    program, calls = compiler
    for _ in range(2):
        done = ask(program, "-Dfails", "a.cpp", "-o", "a.so")
        assert (done.returncode, done.stderr) == (3, "it does not compile\n")
    assert calls() == 2
    assert ask(program, "-Dkilled", "a.cpp", "-o", "a.so").returncode == 1
    assert ask(program, "-Dnothing", "a.cpp", "-o", "a.so").returncode == 0
    assert not (tmp_path / "a.so").exists()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["a.cpp", "-o"],
        ["a.o", "-o", "a.so"],
        ["a.cpp", "b.cpp", "-o", "a.so"],
        ["-c", "a.cpp"],
    ],
    ids=" ".join,
)
def test_what_is_no_compile_of_one_file_is_passed_on(compiler, ask, tmp_path, arguments):
    program, calls = compiler
    (tmp_path / "b.cpp").write_text("int b;")
    done = [ask(program, *arguments) for _ in range(2)]
    assert calls() == 2
    assert not (tmp_path / "kept").exists()
    if "--version" in arguments:
        assert [(one.returncode, one.stdout) for one in done] == [(0, "a compiler, version 1\n")] * 2


def test_a_compiler_that_is_not_there(ask):
    done = ask("/nowhere/g++", "--version")
    assert done.returncode
    assert "/nowhere/g++" in done.stderr or "No such file" in done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_with_a_compiler_that_is_one(ask, tmp_path):
    import ctypes

    (tmp_path / "answer.cpp").write_text('extern "C" int answer() { return ANSWER; }')
    flags = ["-shared", "-fPIC", "answer.cpp", "-o"]
    for name, number in (("one.so", 41), ("two.so", 41), ("three.so", 42)):
        done = ask("g++", f"-DANSWER={number}", *flags, name)
        assert done.returncode == 0, done.stderr
        assert ctypes.CDLL(str(tmp_path / name)).answer() == number
    assert len(list((tmp_path / "kept").iterdir())) == 2
    (tmp_path / "answer.cpp").write_text("int answer(")
    assert ask("g++", *flags, "four.so").returncode == 1
    assert (
        ask("g++", "--version").stdout
        == subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout
    )
