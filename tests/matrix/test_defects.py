# SPDX-License-Identifier: Apache-2.0
"""Which release lacks what, and where a defect appears and is gone."""

from __future__ import annotations

import pytest

from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.defects import defects
from pytest_compilepool.matrix.table import Matrix

VERSIONS = ("2.8.0", "2.9.1", "2.13.0", "2.14.1")
BUG = "https://github.com/pytorch/pytorch/pull/1"


def one(status):
    return Result(
        "q.a",
        status,
        "" if status in ("SKIP", "UNSUPPORTED") else "FAIL" if status == "XFAIL" else status,
        bug=BUG if status == "XFAIL" else "",
        requirement="quiesce" if status == "UNSUPPORTED" else "gpu" if status == "SKIP" else "",
    )


@pytest.fixture
def table(cell):
    """The lines of both tables. statuses: of one feature, by release."""

    def lines(*statuses, more=()):
        cells = [
            cell({"q.a": one(status)}, run={"torch": version})
            for version, status in zip(VERSIONS, statuses, strict=True)
        ]
        told = list(defects(Matrix([*reversed(cells), *more])))
        middle = told.index("")
        return told[2:middle], told[middle + 3 :]

    return lines


@pytest.mark.parametrize(
    ("statuses", "appears", "gone"),
    [
        (["XFAIL"] * 4, "in 2.8.0 or before", "still in 2.14.1"),
        (["PASS", "XFAIL", "XFAIL", "PASS"], "after 2.8.0, by 2.9.1", "after 2.13.0, by 2.14.1"),
        (["PASS", "PASS", "PASS", "FAIL"], "after 2.13.0, by 2.14.1", "still in 2.14.1"),
        (["UNSUPPORTED", "XFAIL", "PASS", "PASS"], "with what 2.8.0 cannot", "after 2.9.1, by 2.13.0"),
        (["SKIP", "XFAIL", "SKIP", "PASS"], "in 2.9.1 or before", "after 2.9.1, by 2.14.1"),
        (
            ["XFAIL", "PASS", "TIMEOUT", "XPASS"],
            "in 2.8.0 or before; after 2.9.1, by 2.13.0",
            "after 2.8.0, by 2.9.1; after 2.13.0, by 2.14.1",
        ),
    ],
)
def test_where_a_defect_appears_and_is_gone(table, statuses, appears, gone):
    _, (row,) = table(*statuses)
    bug = f"[pytorch#1]({BUG})" if "XFAIL" in statuses else "not known"
    assert row == f"| q.a | {appears} | {gone} | {bug} |"


@pytest.mark.parametrize("status", ["PASS", "SKIP", "UNSUPPORTED", "XPASS"])
def test_what_is_kept_or_cannot_be_tried_is_no_defect(table, status):
    assert table(*[status] * 4)[1] == []


def test_who_lacks_what(table):
    (row,), _ = table("UNSUPPORTED", "XFAIL", "SKIP", "PASS")
    assert row == "| quiesce | 2.8.0 | 2.9.1, 2.14.1 |"


def test_what_a_machine_lacks_no_torch_lacks(table):
    assert table("SKIP", "SKIP", "PASS", "PASS")[0] == []


def test_what_only_some_environments_show(table, cell):
    """A release with a GPU and without, in another lane or in the same."""
    for vllm in ("0.32.0", None):
        other = cell({"q.a": one("XFAIL")}, run={"torch": "2.13.0", "gpu": "H200", "vllm": vllm})
        _, (row,) = table("PASS", "PASS", "PASS", "PASS", more=[other])
        assert "after 2.9.1, by 2.13.0 (in 2.13.0 not everywhere)" in row


def test_words_of_a_cell_stay_words(cell):
    evil = Result("q.<b>|x", "XFAIL", "FAIL", bug="javascript:alert(1)")
    row = list(defects(Matrix([cell({evil.id: evil})])))[-1]
    assert row == "| q.\\<b\\>\\|x | in 2.13.0 or before | still in 2.13.0 | not known |"


def test_on_the_command_line(compilepool, written, cell):
    status, out, _ = compilepool("matrix", written(cell({"q.a": one("XFAIL")})), "--defects")
    assert status == 0
    assert "| q.a | in 2.13.0 or before | still in 2.13.0 |" in out
