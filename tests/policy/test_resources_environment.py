# SPDX-License-Identifier: Apache-2.0
"""The environment from before anything changed it."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_compilepool.resources import start_environment

CHANGES = """
import os
os.environ["COMPILEPOOL_TEST"] = "now"
os.environ["COMPILEPOOL_NEW"] = "now"
from pytest_compilepool.resources import start_environment
"""

# Where the kernel keeps a process' environment, fields 50 and 51 of its stat: what titles are written over.
OVERWRITE = """
import ctypes
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(stat[47]), int(stat[48])
def write(text):
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))
"""

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/self/environ")


@needs_proc
def test_as_it_was(elsewhere) -> None:
    code = f"{CHANGES}\nanswer = start_environment()"
    seen = elsewhere(code, env={"COMPILEPOOL_TEST": "before=1\nand more"})
    assert seen["COMPILEPOOL_TEST"] == "before=1\nand more"
    assert "COMPILEPOOL_NEW" not in seen


@needs_proc
@pytest.mark.parametrize("title", [b"", b"a new title", b"A=1\0tle"])
def test_written_over_by_a_process_title(elsewhere, title: bytes) -> None:
    code = f"{CHANGES}\n{OVERWRITE}\nwrite({title!r})\nanswer = start_environment()"
    seen = elsewhere(code, env={"COMPILEPOOL_TEST": "before"})
    assert seen["COMPILEPOOL_TEST"] == "now"


@needs_proc
def test_an_empty_environment_is_empty(tmp_path) -> None:
    folder = tmp_path / "proc/self"
    folder.mkdir(parents=True)
    (folder / "environ").write_bytes(b"")
    assert start_environment(tmp_path) == {}


def test_without_proc_it_is_a_copy_of_now(tmp_path) -> None:
    seen = start_environment(tmp_path)
    assert seen == dict(os.environ)
    seen["COMPILEPOOL_TEST"] = "x"
    assert "COMPILEPOOL_TEST" not in os.environ
