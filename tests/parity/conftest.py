# SPDX-License-Identifier: Apache-2.0
"""Three kernels that are compiled once, and copies of them to which something is done."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pytest_compilepool.fresh import callables
from pytest_compilepool.fresh.order import Answer, Order
from pytest_compilepool.fresh.run import Folders, run
from pytest_compilepool.parity.artifacts import read_artifacts
from pytest_compilepool.parity.findings import Side
from pytest_compilepool.workloads import torch_programs

pytest.importorskip("torch", reason="parity is between torch's ways to compile")

KERNELS = ("softmax", "transpose", "gather")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory, offline_here):
    """Three kernels for cuda:90, compiled by one thread; gives the answer and the folder."""
    folder = tmp_path_factory.mktemp("compiled") / "here"
    folders = Folders.below(folder / "caches", folder / "run")
    work = callables.pack((torch_programs.run_all, (KERNELS,), {}), "here")
    answer = run(Order(work, tuple(sys.path), target="cuda:90", limit=120), folders)
    assert answer.failure is None
    return answer, folder


def _side(answer: Answer, folder: Path, label: str, compiled_in: Path) -> Side:
    folders = Folders.below(folder / "caches", folder / "run")
    moved = (str(compiled_in / "caches"), str(folder / "caches"))
    return Side(label, answer, folders, read_artifacts(folders.triton, moved), None)


@pytest.fixture
def sides(compiled, tmp_path):
    """Gives a function that copies the kernels, lets something be done to the copy, and gives both sides."""
    answer, folder = compiled

    def make(change=lambda there: None) -> tuple[Side, Side]:
        there = tmp_path / "there"
        shutil.copytree(folder, there)
        # What the two sides compiled, they compiled in folders of the same names.
        change(there / "caches")
        return _side(answer, folder, "here", folder), _side(answer, there, "there", folder)

    return make
