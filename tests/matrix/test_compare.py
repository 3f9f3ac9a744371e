# SPDX-License-Identifier: Apache-2.0
"""Two cells beside each other: every kind of change, what is said first, and when the exit status is 1."""

from __future__ import annotations

import pytest

from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.compare import KINDS, compare, lines, regressed
from pytest_compilepool.matrix.counters import moved


def failing(signature="closed < a.py:f", status="FAIL", got="FAIL"):
    return Result("warm.a", status, got, signature=signature)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("PASS", "PASS", None),
        ("PASS", "XPASS", None),
        ("SKIP", "SKIP", None),
        ("UNSUPPORTED", "UNSUPPORTED", None),
        ("PASS", "FAIL", "regressed"),
        ("PASS", "TIMEOUT", "regressed"),
        ("PASS", "CRASH", "regressed"),
        ("PASS", "ERROR", "regressed"),
        ("PASS", "LEAK", "regressed"),
        ("XPASS", "FAIL", "regressed"),
        ("PASS", "XFAIL", "regressed, known"),
        ("FAIL", "PASS", "fixed"),
        ("XFAIL", "PASS", "fixed"),
        ("XFAIL", "XPASS", "fixed"),
        ("UNSUPPORTED", "PASS", "new"),
        ("UNSUPPORTED", "XFAIL", "new"),
        ("PASS", "UNSUPPORTED", "gone"),
        ("FAIL", "UNSUPPORTED", "gone"),
        ("PASS", "SKIP", "not comparable"),
        ("SKIP", "FAIL", "not comparable"),
        ("NOTRUN", "FAIL", "not comparable"),
        ("UNSUPPORTED", "SKIP", "not comparable"),
        ("PASS", "FLAKY", "flaky"),
        ("FLAKY", "FAIL", "flaky"),
    ],
)
def test_kinds(cell, before, after, kind):
    found = compare(cell({"warm.a": before}), cell({"warm.a": after}))
    assert [change.kind for change in found] == ([] if kind is None else [kind])
    assert regressed(cell({"warm.a": before}), cell({"warm.a": after})) == (kind == "regressed")


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (failing(), "same"),
        (failing(status="XFAIL"), "same"),  # that somebody knows of it changes nothing
        (failing("another"), "another"),
        (failing(got="TIMEOUT"), "another"),
    ],
)
def test_not_kept_in_both(cell, after, kind):
    found = compare(cell({"warm.a": failing()}), cell({"warm.a": after}))
    assert [change.kind for change in found] == [kind]


def test_another_suites_way_to_shorten_a_reason_is_no_difference(cell):
    """Its signature is made anew from the reason, where there is one."""
    base, head = (
        Result("warm.a", "FAIL", "FAIL", reason=f"left: {pids}", signature=pids)
        for pids in ("pid 7, pid 8", "pid 1")
    )
    (change,) = compare(cell({"warm.a": base}), cell({"warm.a": head}))
    assert (change.kind, change.text) == ("same", "FAIL: left: pid N")


def test_features_of_one_suite_only(cell):
    found = compare(cell({"warm.a": "PASS"}), cell({"warm.b": "FAIL"}))
    assert [(change.feature, change.kind) for change in found] == [("warm.b", "new"), ("warm.a", "gone")]


def test_what_was_not_run_is_not_gone(cell):
    found = compare(cell({"warm.a": "PASS"}), cell({"warm.b": "PASS"}, not_run={"warm.a": "deselected"}))
    assert [(change.feature, change.kind) for change in found] == [
        ("warm.b", "new"),
        ("warm.a", "not comparable"),
    ]
    assert "NOTRUN: deselected" in found[1].text


def test_kinds_are_told_in_their_order(cell):
    every = {"warm.a": ("PASS", "FAIL"), "warm.b": ("FAIL", "PASS"), "warm.c": ("PASS", "SKIP")}
    base, head = (cell({name: pair[number] for name, pair in every.items()}) for number in (0, 1))
    told = [change.kind for change in compare(base, head)]
    assert told == sorted(told, key=list(KINDS).index) == ["regressed", "fixed", "not comparable"]


def test_first_comes_what_flipped(cell):
    base = cell(run={"defaults": {"quiesce": False, "old": 1, "same": 2}})
    head = cell(run={"torch": "2.14.0", "defaults": {"quiesce": True, "new": 1, "same": 2}})
    told = list(lines(base, head))
    assert told[2:6] == [
        "defaults of torch that differ (3):",
        "  new: not there -> 1",
        "  old: 1 -> not there",
        "  quiesce: False -> True",
    ]
    assert not [line for line in told if line.startswith("warning")]


def test_two_axes_are_warned_of_and_one_is_not(cell):
    base = cell()
    one = list(lines(base, cell(run={"torch": "2.14.1", "triton": "3.8.0", "torch_git": "b"})))
    two = list(lines(base, cell(run={"torch": "2.14.1", "host": "b", "python": "3.12.1"})))
    assert not [line for line in one if line.startswith("warning")]
    assert (
        "warning: more than one thing differs, so that no change has one cause: torch, python, machine" in two
    )
    assert "  python: python: 3.11.7, 3.12.1" in two


def test_a_cell_of_half_a_run_is_warned_of(cell):
    told = list(lines(cell(complete=False), cell(shard="1/2")))
    assert len([line for line in told if line.endswith("is no whole run")]) == 2


def test_counters_for_the_better_and_the_worse():
    base = {"a.cache_hit": 1, "a.cache_miss": 3, "a.strange": 1, "a.same": 2, "vllm.num_artifacts_saved": 2}
    head = {"a.cache_hit": 3, "a.cache_miss": 4, "a.same": 2, "vllm.num_artifacts_saved": 1}
    assert list(moved(base, head)) == [
        "a.cache_hit: 1 -> 3 (better)",
        "a.cache_miss: 3 -> 4 (worse)",
        "a.strange: 1 -> 0 (moved)",
        "vllm.num_artifacts_saved: 2 -> 1 (better)",
    ]


def test_a_counter_that_moved_is_no_regression(cell):
    base = cell({"warm.a": Result("warm.a", "PASS", "PASS", counters={"a_miss": 1})})
    head = cell({"warm.a": Result("warm.a", "PASS", "PASS", counters={"a_miss": 2})})
    assert "  warm.a: a_miss: 1 -> 2 (worse)" in list(lines(base, head))
    assert not regressed(base, head)


def test_the_command(cell, written, compilepool):
    base = written(cell(), "base.json")
    head = written(cell({"warm.a": failing()}, run={"torch": "2.14.1"}), "head.json")
    status, out, _ = compilepool("compare", base, head)
    assert status == 1
    assert "regressed (1):\n  warm.a: PASS -> FAIL: closed < a.py:f" in out
    status, out, _ = compilepool("compare", head, base)
    assert status == 0
    assert "fixed (1):" in out
    status, out, _ = compilepool("compare", base, base)
    assert status == 0
    assert "no feature changed" in out


def test_the_command_refuses_what_is_no_cell(cell, written, compilepool, tmp_path):
    base = written(cell(), "base.json")
    (tmp_path / "half.json").write_text(base.read_text()[:80])
    for other in ("half.json", "not-there.json", "."):
        status, out, err = compilepool("compare", base, tmp_path / other)
        assert (status, out) == (4, "")
        assert err.startswith("compilepool compare: ")
        assert err.count("\n") == 1
