# SPDX-License-Identifier: Apache-2.0
"""Parts of a run that do not go together, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_compilepool.matrix.cell import BadCell, Result, from_text
from pytest_compilepool.matrix.merge import ELSEWHERE, merge


def part(cell, number, results, left=()):
    return cell(results, shard=f"{number}/4", not_run=dict.fromkeys(left, ELSEWHERE), source=f"{number}.json")


NAMES = ["a.a", "a.b", "a.c", "a.d"]


def quarters(cell):
    return [
        part(cell, number, {name: "PASS"}, [other for other in NAMES if other != name])
        for number, name in enumerate(NAMES, 1)
    ]


def test_parts_may_be_merged_step_by_step(cell):
    one, two, three, four = quarters(cell)
    half = merge([one, two])
    assert (half.shard, half.complete) == ("1/4+2/4", True)
    assert from_text(half.to_text(), "half.json").shard == "1/4+2/4"
    whole = merge([half, three, four])
    assert (whole.shard, whole.complete, set(whole.results)) == ("", True, set(NAMES))


def test_parts_of_different_selections_are_no_whole(cell):
    parts = [part(cell, number, {f"a.{number}": "PASS"}, ["a.nobody"]) for number in (1, 2, 3, 4)]
    with pytest.raises(BadCell, match=r"1 features are in none of these parts, for example a\.nobody"):
        merge(parts)


def test_parts_that_saw_different_things_are_two_runs(cell):
    one, two = (
        part(cell, number, {"a.a": Result("a.a", "XFAIL", got)})
        for number, got in ((1, "FAIL"), (2, "TIMEOUT"))
    )
    with pytest.raises(BadCell, match=r"a.a is XFAIL \(TIMEOUT\), but XFAIL \(FAIL\) in 1.json"):
        merge([one, two])


def test_parts_of_different_settings_say_in_what_they_differ(cell):
    parts = [cell(run={"defaults": {"quiesce": flag}}) for flag in (True, False)]
    with pytest.raises(BadCell, match=r"of another environment than cell\.json: defaults is another"):
        merge(parts)


@pytest.mark.parametrize("again", [1, 2])
def test_a_whole_and_its_part_or_one_part_twice_are_no_parts(cell, again):
    first = part(cell, 1, {"a.a": "PASS"})
    other = first if again == 1 else cell({"a.a": "PASS"}, source="whole.json")
    with pytest.raises(BadCell, match=r"a\.a has a result in 1\.json, too; parts have none in common"):
        merge([first, replace(other, results=dict(cell({"a.a": "PASS"}).results))])


def test_a_refusal_names_what_may_not_differ_and_nothing_else(cell):
    parts = [cell(run={"cpus": count, "environment": {"TRITON_X": str(count)}}) for count in (2, 16)]
    with pytest.raises(BadCell) as caught:
        merge(parts)
    assert "environment: TRITON_X=2, TRITON_X=16" in str(caught.value)
    assert "cpus" not in str(caught.value)
