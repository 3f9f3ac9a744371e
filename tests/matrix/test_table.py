# SPDX-License-Identifier: Apache-2.0
"""Many cells side by side: columns and lanes, what decides in a square, and what is said of the cells first."""

from __future__ import annotations

import json

import pytest

from pytest_compilepool.matrix import plain
from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.environments import column, identity, lane
from pytest_compilepool.matrix.history import history
from pytest_compilepool.matrix.support import support
from pytest_compilepool.matrix.table import Matrix


def of_torch(cell, version, status, **named):
    return cell({"warm.a": status}, run={"torch": version, **named})


def test_columns_are_releases_in_the_order_of_versions(cell):
    versions = [
        "2.14.1",
        "2.9.1",
        "2.10.0",
        "2.13.0+cpu",
        "2.13.0+cu130",
        "2.16.0",
        "2.16.0.dev20261101",
        "2.16.0.dev20261102",
    ]
    matrix = Matrix([of_torch(cell, version, "PASS") for version in versions])
    assert [one.name for one in matrix.columns] == [
        "2.9.1",
        "2.10.0",
        "2.13.0",
        "2.14.1",
        "2.16.0 nightly",
        "2.16.0",
    ]
    assert [len(one.cells) for one in matrix.columns] == [1, 1, 2, 1, 2, 1]


def test_lanes_are_vllms_and_none_comes_first(cell):
    matrix = Matrix(
        [of_torch(cell, "2.13.0", "PASS", vllm=version) for version in ("0.32.0", None, "0.9.0", "-")]
    )
    assert list(matrix.lanes) == ["no vLLM", "vLLM 0.9.0", "vLLM 0.32.0"]


def test_a_pool_that_is_no_torch_has_its_name(cell):
    assert column(cell(run={"torch": None, "pool": "mine"})) == "mine"
    assert lane(cell(run={"vllm": None})) == "no vLLM"


@pytest.mark.parametrize(
    ("statuses", "letter"),
    [
        (["PASS"], "P"),
        (["PASS", "PASS"], "P"),
        (["PASS", "SKIP"], "P1/2"),
        (["PASS", "FAIL", "FAIL"], "F2/3"),
        (["SKIP", "UNSUPPORTED"], "u1/2"),
        (["XFAIL", "TIMEOUT"], "T1/2"),
    ],
)
def test_the_worst_decides_and_how_many_say_so_is_told(cell, statuses, letter):
    cells = [of_torch(cell, "2.13.0", status, gpu=f"g{number}") for number, status in enumerate(statuses)]
    matrix = Matrix(cells)
    assert plain.letter(matrix.columns[0].squares["warm.a"], matrix.columns[0]) == letter


def test_cells_of_one_environment_that_disagree_mark_the_column(cell):
    matrix = Matrix([of_torch(cell, "2.13.0", "PASS"), of_torch(cell, "2.13.0", "FAIL", host="b")])
    told = "\n".join(plain.terminal(matrix))
    assert matrix.columns[0].squares["warm.a"].disagree
    assert "2.13.0!" in told
    assert "! no vLLM, 2.13.0: cells of one environment disagree about 1 features: warm.a" in told


def test_cells_of_different_environments_may_differ(cell):
    matrix = Matrix([of_torch(cell, "2.13.0", "PASS"), of_torch(cell, "2.13.0", "FAIL", gpu="H200")])
    assert not matrix.columns[0].torn
    assert matrix.columns[0].squares["warm.a"].status == "FAIL"


@pytest.mark.parametrize("name", ["host", "kernel", "cpus", "started", "ci", "driver"])
def test_another_machine_is_the_same_environment(cell, name):
    assert identity(cell()) == identity(cell(run={name: "other"}))
    assert identity(cell()) != identity(cell(run={"gpu": "H200"}))
    assert identity(cell()) != identity(cell(mode="smoke"))


def test_first_it_is_told_what_a_cell_is_evidence_for(cell):
    made = cell(
        {"warm.a": "PASS", "warm.b": "SKIP", "warm.c": "UNSUPPORTED", "warm.d": "XFAIL"},
        not_run={"warm.e": "why"},
        complete=False,
    )
    first = next(plain.terminal(Matrix([made])))
    assert first.endswith("evidence for 3 of 5 features; the run did not come to its end")


def test_a_feature_that_only_some_cells_have(cell):
    matrix = Matrix(
        [cell({"warm.a": "PASS"}, run={"torch": "2.8.0"}), cell({"warm.b": "PASS"}, run={"torch": "2.9.1"})]
    )
    rows = [line for line in plain.terminal(matrix) if line.startswith("warm.")]
    assert [row.split() for row in rows] == [["warm.a", "P", "-"], ["warm.b", "-", "P"]]


def test_markdown_has_changed_rows_only_and_no_markup_of_others(cell):
    bad = Result(
        "warm.a", "FAIL", "FAIL", reason="<script>alert(1)</script> | `x`\nmore", bug="javascript:alert(1)"
    )
    known = Result("warm.b", "XFAIL", "FAIL", reason="broken", bug="https://example.org/1")
    matrix = Matrix(
        [
            cell({"warm.a": "PASS", "warm.b": known, "warm.c": "PASS"}, run={"torch": "2.8.0"}),
            cell({"warm.a": bad, "warm.b": "PASS", "warm.c": "PASS"}, run={"torch": "2.9.1"}),
        ]
    )
    told = "\n".join(plain.markdown(matrix))
    assert "**2 of 3 features are not the same everywhere; 1 are not as expected somewhere.**" in told
    assert "warm.c" not in told
    assert "| warm.b | x | P |" in told
    assert "\\<script\\>" in told
    assert "<script" not in told.replace("\\<", "")
    assert "javascript" not in told
    assert "([bug](https://example.org/1))" in told


def test_since_and_until(cell):
    statuses = {
        "2.8.0": "UNSUPPORTED",
        "2.9.1": "XFAIL",
        "2.10.0": "XFAIL",
        "2.11.0": "PASS",
        "2.13.0": "PASS",
    }
    cells = [
        cell(
            {"warm.a": Result("warm.a", status, requirement="quiesce" if status == "UNSUPPORTED" else "")},
            run={"torch": version},
        )
        for version, status in statuses.items()
    ]
    told = support(Matrix(cells))
    assert told["features"]["warm.a"]["no vLLM"] == [
        {"since": "2.8.0", "until": "2.8.0", "status": "UNSUPPORTED", "requirement": "quiesce"},
        {"since": "2.9.1", "until": "2.10.0", "status": "XFAIL"},
        {"since": "2.11.0", "until": None, "status": "PASS"},
    ]


def test_the_command(cell, written, compilepool, tmp_path):
    (tmp_path / "cells").mkdir()
    files = [
        written(of_torch(cell, version, status), f"cells/{version}.json")
        for version, status in (("2.8.0", "FAIL"), ("2.9.1", "PASS"))
    ]
    status, out, err = compilepool("matrix", tmp_path / "cells", "--support-json", tmp_path / "support.json")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines() if line.startswith("warm.a")] == [["warm.a", "F", "P"]]
    assert json.loads((tmp_path / "support.json").read_text())["schema"] == 1
    # One that cannot be used is named, and the others are shown.
    files[0].write_text(files[0].read_text()[:50])
    status, out, err = compilepool("matrix", tmp_path / "cells")
    assert status == 1
    assert "left out: " in err
    assert "2.8.0.json" in err
    assert [line.split() for line in out.splitlines() if line.startswith("warm.a")] == [["warm.a", "P"]]


@pytest.mark.parametrize("name", ["not-there", "empty"])
def test_the_command_without_a_cell(compilepool, tmp_path, name):
    (tmp_path / "empty").mkdir()
    status, out, err = compilepool("matrix", tmp_path / name)
    assert (status, out) == (4, "")
    assert err.count("\n") == 1


def test_one_feature_through_many_builds(cell, written, compilepool, tmp_path):
    builds = {"20261101": "PASS", "20261102": "SKIP", "20261103": "FAIL", "20261104": "FAIL"}
    for day, status in builds.items():
        run = {"torch": f"2.16.0.dev{day}", "torch_git": f"c{day}"}
        written(cell({"warm.a": status}, run=run), f"{day}.json")
    status, out, _ = compilepool("matrix", tmp_path, "--feature", "warm.a")
    assert status == 0
    assert out.count("changed between these two") == 1
    assert "https://github.com/pytorch/pytorch/compare/c20261101...c20261103" in out
    status, _, err = compilepool("matrix", tmp_path, "--feature", "warm.z")
    assert status == 4
    assert "'warm.z' is in none of these cells" in err


def test_a_change_within_one_commit_of_torch_is_not_torchs(cell):
    builds = [
        cell({"warm.a": status}, run={"torch": "2.14.1", "torch_git": "same", "started": day})
        for day, status in (("2026-11-01", "PASS"), ("2026-11-02", "FAIL"))
    ]
    assert "  changed between these two: the same commit of torch (same), so not torch's" in list(
        history(builds, "warm.a")
    )
    for build in builds:
        del build.run["torch_git"]
    assert "  changed between these two: their commits are not in the cells" in list(
        history(builds, "warm.a")
    )
