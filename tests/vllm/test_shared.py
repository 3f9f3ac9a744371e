# SPDX-License-Identifier: Apache-2.0
"""Shared memory that an engine's processes leave: real segments, by name. No vLLM."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from pytest_compilepool.vllm.engines import shared

pytestmark = pytest.mark.skipif(not shared.MEMORY.is_dir(), reason="no /dev/shm here")

NAME = f"compilepool-test-{os.getpid()}"


@pytest.fixture
def segment():
    """Make one, map it here, and have it unmapped and removed in the end."""
    made = []

    def make(name):
        with open(shared.MEMORY / name, "w+b") as file:
            file.truncate(4096)
            made.append((name, mmap.mmap(file.fileno(), 4096)))
        return made[-1][1]

    yield make
    for name, memory in made:
        memory.close()
        (shared.MEMORY / name).unlink(missing_ok=True)


def test_what_is_mapped_is_no_leak_and_what_nobody_maps_is(segment, tmp_path):
    one, _ = segment(f"{NAME}-a"), segment(f"{NAME} with a blank")
    shared.note(tmp_path)
    assert shared.left(tmp_path) == []
    one.close()
    assert shared.left(tmp_path) == [f"{NAME}-a"]
    shared.remove(shared.left(tmp_path))
    assert shared.left(tmp_path) == []


def test_one_without_a_name_goes_with_its_process(segment, tmp_path):
    segment(NAME)
    (shared.MEMORY / NAME).unlink()
    shared.note(tmp_path)
    assert NAME not in shared.mapped([os.getpid()])
    assert not (tmp_path / shared.NOTE).exists()


def test_that_of_a_process_below_is_noted(tmp_path):
    program = (
        "import mmap, sys; file = open(sys.argv[1], 'w+b'); file.truncate(4096); "
        "memory = mmap.mmap(file.fileno(), 4096); print('there', flush=True); input()"
    )
    place = shared.MEMORY / NAME
    try:
        with subprocess.Popen(
            [sys.executable, "-c", program, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout.readline() == b"there\n"
            shared.note(tmp_path)
            assert shared.left(tmp_path) == []  # it is in use
            child.communicate(b"\n", timeout=10)
        assert shared.left(tmp_path) == [NAME]
    finally:
        place.unlink(missing_ok=True)


def test_where_nothing_was_noted_nothing_is_left(tmp_path):
    assert shared.left(tmp_path) == []
    shared.remove([f"{NAME}-was-never-there"])
