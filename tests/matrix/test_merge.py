# SPDX-License-Identifier: Apache-2.0
"""Parts of a run put together."""

from __future__ import annotations

import pytest

from pytest_compilepool.conformance.shards import in_shard, parse_shard
from pytest_compilepool.matrix.cell import BadCell, read_cell
from pytest_compilepool.matrix.merge import ELSEWHERE, merge


def halves(cell, **second):
    return (
        cell(
            {"warm.a": "PASS"},
            shard="1/2",
            not_run={"warm.b": ELSEWHERE, "warm.c": "runs in the mode stress"},
        ),
        cell(
            {"warm.b": "XFAIL"},
            shard="2/2",
            not_run={"warm.a": ELSEWHERE, "warm.c": "runs in the mode stress"},
            **second,
        ),
    )


def test_two_halves_are_the_whole(cell):
    whole = cell({"warm.a": "PASS", "warm.b": "XFAIL"}, not_run={"warm.c": "runs in the mode stress"})
    assert merge(halves(cell)).to_text() == whole.to_text()
    assert merge(list(reversed(halves(cell)))).to_text() == whole.to_text()


def test_a_part_that_is_missing_is_told(cell):
    made = merge(halves(cell)[:1])
    assert made.complete  # what was begun came to its end
    assert made.shard == "1/2"
    assert made.not_run["warm.b"] == ELSEWHERE


def test_a_part_that_was_cut_short_is_told(cell):
    assert not merge(halves(cell, complete=False)).complete


def test_machines_may_differ(cell):
    made = merge(halves(cell, run={"host": "b", "kernel": "6.1", "started": "2026-01-01"}))
    assert made.run["host"] == "a | b"


def test_another_environment_is_refused(cell):
    with pytest.raises(BadCell, match=r"of another environment than .*: torch: 2.13.0\+cpu, 2.14.1"):
        merge(halves(cell, run={"torch": "2.14.1"}))


def test_two_runs_that_disagree_are_refused(cell):
    with pytest.raises(BadCell, match=r"warm\.a is FAIL, but PASS in cell\.json"):
        merge([cell({"warm.a": "PASS"}), cell({"warm.a": "FAIL"})])


def test_parts_of_different_divisions_are_refused(cell):
    with pytest.raises(BadCell, match="parts of different divisions: 1/2, 3/3"):
        merge([cell({"warm.a": "PASS"}, shard="1/2"), cell({"warm.b": "PASS"}, shard="3/3")])


def test_the_command(cell, written, compilepool, tmp_path):
    one, other = halves(cell)
    files = written(one, "1.json"), written(other, "2.json")
    status, out, _ = compilepool("merge", *files, "--out", tmp_path / "whole.json")
    assert status == 0
    assert "2 parts, 1 XFAIL, 1 PASS, 1 NOTRUN" in out
    assert read_cell(tmp_path / "whole.json").results.keys() == {"warm.a", "warm.b"}
    status, out, _ = compilepool("merge", files[0], "--out", tmp_path / "half.json")
    assert status == 1
    assert "not a whole run" in out
    status, _, err = compilepool("merge", *files, "--out", tmp_path / "not/there.json")
    assert status == 4
    assert "--out: " in err


@pytest.mark.parametrize("many", [1, 2, 3, 7, 50])
def test_shards_hold_each_feature_once(many):
    every = [f"group{number % 5}.name{number}" for number in range(23)]
    parts = [in_shard(every, f"{number}/{many}") for number in range(1, many + 1)]
    assert sorted(name for part in parts for name in part) == sorted(every)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_a_shard_there_are_all():
    assert in_shard(["a.b", "a.c"], None) == {"a.b", "a.c"}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "", " 1/2", "-1/2", "01/2"])
def test_a_shard_that_is_none(text):
    with pytest.raises(ValueError):
        parse_shard(text)
