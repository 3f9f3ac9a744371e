# SPDX-License-Identifier: Apache-2.0
"""Cells made for tests of what is read off them."""

from __future__ import annotations

import pytest

from pytest_compilepool.matrix.cell import Cell, Result

RUN = {
    "pool": "torch's compile pool",
    "torch": "2.13.0+cpu",
    "triton": "3.7.1",
    "python": "3.11.7",
    "host": "a",
}


@pytest.fixture
def cell():
    """A cell. results: statuses by feature, or Results; run: what differs from RUN, None for what is not there."""

    def make(results=None, *, run=None, **named):
        found = {
            name: one
            if isinstance(one, Result)
            else Result(name, one, "" if one in ("SKIP", "UNSUPPORTED") else one)
            for name, one in (results or {"warm.a": "PASS"}).items()
        }
        told = {name: value for name, value in {**RUN, **(run or {})}.items() if value is not None}
        named = {"suite": "1.0", "mode": "standard", "complete": True, "source": "cell.json", **named}
        return Cell(run=told, results=found, **named)

    return make


@pytest.fixture
def compilepool(capsys):
    """Run a sub-command in this process. Returns its status, what it printed and what it complained of."""

    def run(*arguments):
        from pytest_compilepool.cli.main import main

        try:
            status = main([str(one) for one in arguments])
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def written(tmp_path):
    """Write a cell; returns its file."""

    def write(cell, name="cell.json"):
        (tmp_path / name).write_text(cell.to_text())
        return tmp_path / name

    return write
