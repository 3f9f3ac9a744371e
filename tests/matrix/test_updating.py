# SPDX-License-Identifier: Apache-2.0
"""Expectations brought up to date: what is added, what is removed, and what stays whatever happens."""

from __future__ import annotations

import pytest

from pytest_compilepool.matrix.cell import Result

FEATURES = "".join(
    f'[[feature]]\nid = "warm.{name}"\ntitle = "t"\nmust = "It MUST hold."\nsince = "0.1"\nmode = "smoke"\n'
    for name in "abc"
)
OLD = """# Known.

[[expect]]
feature = "warm.b"
torch = "==2.13.0"
status = ["FAIL"]
bug = "https://example.org/b"

# Of another release.
[[expect]]
feature = "warm.b"
torch = ">=2.8,<2.12"
status = ["FAIL"]
bug = "https://example.org/b"
"""


@pytest.fixture
def update(compilepool, written, tmp_path):
    """Bring `expectations.toml` up to date with these cells. Returns what the command said."""
    (tmp_path / "features.toml").write_text(FEATURES)
    (tmp_path / "expectations.toml").write_text(OLD)

    def run(*cells, bug="https://example.org/new", more=()):
        files = [written(one, f"{number}.json") for number, one in enumerate(cells)]
        arguments = ["--file", tmp_path / "expectations.toml", "--suite", tmp_path, *more]
        arguments += ["--bug", bug] if bug else []
        return compilepool("expectations", "update", *files, *arguments)

    return run


@pytest.fixture
def now(tmp_path):
    return lambda: (tmp_path / "expectations.toml").read_text()


def test_what_nobody_knew_is_added_with_its_bug(update, cell, now):
    status, out, _ = update(cell({"warm.a": Result("warm.a", "TIMEOUT", "TIMEOUT")}))
    assert status == 0
    assert now().startswith(OLD)
    assert now()[len(OLD) :] == (
        '\n[[expect]]\nfeature = "warm.a"\ntorch = "==2.13.0"\nstatus = ["TIMEOUT"]\nbug = "https://example.org/new"\n'
    )
    assert "1 added, 0 removed" in out


def test_what_was_written_is_read_again_and_changes_nothing_more(update, cell, now):
    made = cell({"warm.a": Result("warm.a", "TIMEOUT", "TIMEOUT")})
    update(made)
    before = now()
    known = cell({"warm.a": Result("warm.a", "XFAIL", "TIMEOUT")})
    status, _, err = update(known)
    assert (status, err) == (0, "")
    assert now() == before


def test_without_a_bug_nothing_is_added(update, cell, now):
    status, out, _ = update(cell({"warm.a": "FAIL"}), bug="")
    assert status == 1
    assert now() == OLD
    assert "warm.a, torch 2.13.0: FAIL: not added without --bug" in out


def test_what_differs_is_added_with_all_that_was_seen(update, cell, now):
    update(cell({"warm.a": Result("warm.a", "FLAKY", "PASS", attempts=["TIMEOUT", "PASS"])}))
    assert 'status = ["TIMEOUT", "PASS"]' in now()


def test_what_is_kept_now_is_removed_for_that_release_only(update, cell, now):
    status, out, _ = update(cell({"warm.b": Result("warm.b", "XPASS", "PASS")}))
    assert status == 0
    assert "0 added, 1 removed" in out
    assert "==2.13.0" not in now()
    assert ">=2.8,<2.12" in now()
    assert "# Known." in now()
    assert "# Of another release." in now()


def test_a_range_is_not_cut_by_a_machine(update, cell, now):
    status, out, _ = update(cell({"warm.b": Result("warm.b", "XPASS", "PASS")}, run={"torch": "2.11.0"}))
    assert status == 1
    assert now() == OLD
    assert "narrow it by hand" in out


def test_it_is_removed_only_where_every_cell_says_so(update, cell, now):
    kept = cell({"warm.b": Result("warm.b", "XPASS", "PASS")})
    not_kept = cell({"warm.b": Result("warm.b", "XFAIL", "FAIL")})
    update(kept, not_kept)
    assert now() == OLD


@pytest.mark.parametrize("status", ["SKIP", "NOTRUN", "UNSUPPORTED"])
def test_what_was_not_tried_removes_nothing(update, cell, now, status):
    assert update(cell({"warm.b": status}))[0] == 0
    assert now() == OLD


def test_a_part_of_a_run_removes_nothing_it_does_not_speak_of(update, cell, now):
    update(cell({"warm.a": "PASS"}, shard="1/2", complete=False))
    assert now() == OLD


@pytest.mark.parametrize("got", ["ERROR", "LEAK"])
def test_what_is_no_property_of_a_pool_is_not_added(update, cell, now, got):
    assert update(cell({"warm.a": Result("warm.a", got, got)}))[0] == 1
    assert now() == OLD


def test_a_nightly_is_no_release(update, cell, now):
    status, out, _ = update(cell({"warm.a": "FAIL"}, run={"torch": "2.16.0.dev20261101"}))
    assert status == 1
    assert now() == OLD
    assert "not of a release of torch" in out


def test_another_status_than_is_known_is_told(update, cell, now):
    status, out, _ = update(cell({"warm.b": Result("warm.b", "CRASH", "CRASH")}))
    assert status == 1
    assert now() == OLD
    assert "expects FAIL" in out


def test_a_dry_run_changes_nothing(update, cell, now):
    status, out, _ = update(cell({"warm.a": "FAIL"}), more=["--dry-run"])
    assert status == 0
    assert 'feature = "warm.a"' in out
    assert now() == OLD


def test_bad_input(update, cell, compilepool, tmp_path, now):
    status, _, err = update(cell({"warm.a": "FAIL"}), bug="issue 5")
    assert (status, err.count("\n")) == (4, 1)
    assert "--bug: 'issue 5' is not allowed; allowed: a link that begins with https://" in err
    status, _, err = update(cell({"other.z": "FAIL"}))
    assert status == 4
    assert "features of another suite: other.z" in err
    (tmp_path / "expectations.toml").write_text("[[expect")
    status, _, err = update(cell({"warm.a": "FAIL"}))
    assert status == 4
    assert now() == "[[expect"


def test_the_same_cell_once_more_changes_nothing(update, cell, now):
    made = cell({"warm.a": "TIMEOUT"})
    update(made)
    before = now()
    status, out, err = update(made)
    assert (status, err) == (0, "")
    assert "0 added, 0 removed" in out
    assert now() == before


@pytest.mark.parametrize("strange", ["\x85" * 6, "\u2028", "\x0b"])
def test_an_odd_end_of_line_in_a_comment_moves_no_entry(update, cell, now, tmp_path, strange):
    other = OLD.replace("warm.b", "warm.c")
    (tmp_path / "expectations.toml").write_text(f"# x{strange.replace(chr(11), '')}\n{other}\n{OLD}")
    status, out, _ = update(cell({"warm.b": Result("warm.b", "XPASS", "PASS")}))
    assert status == 0
    assert "warm.b, torch ==2.13.0: is kept now" in out
    assert now().count('"warm.b"') == 1
    assert now().count('"warm.c"') == 2


@pytest.mark.parametrize(
    ("results", "bug"),
    [
        ({"warm.a": Result("warm.a", "FAIL")}, "https://example.org/new"),
        ({"warm.a": Result("warm.a", "FAIL", "PASS")}, "https://example.org/new"),
        ({"warm.a": Result("warm.a", "FAIL", "FAIL", attempts=["FAIL", "odd"])}, "https://example.org/new"),
    ],
)
def test_what_does_not_say_what_came_of_it_is_not_added(update, cell, now, results, bug):
    status, out, err = update(cell(results), bug=bug)
    assert (status, err) == (1, "")
    assert "not added" in out
    assert now() == OLD


def test_signs_beyond_the_sixteenth_bit_are_written_as_they_are(update, cell, now):
    status, _, err = update(cell({"warm.a": "FAIL"}), bug="https://example.org/\U0001f600")
    assert (status, err) == (0, "")
    assert "https://example.org/\U0001f600" in now()


@pytest.mark.parametrize("version", [["abc"], ["2.14", "2.14.0"]])
def test_a_file_that_could_not_be_read_back_is_not_written(update, cell, now, version):
    cells = [cell({"warm.a": "FAIL"}, run={"torch": one}) for one in version]
    status, _, err = update(*cells)
    assert status == 4
    assert "not changed: what it would become is not right: " in err
    assert now() == OLD


def test_cells_of_two_pools_are_about_two_files(update, cell, now):
    status, _, err = update(cell({"warm.a": "FAIL"}), cell({"warm.a": "PASS"}, run={"pool": "mine"}))
    assert status == 4
    assert "cells of different pools: mine, torch's compile pool; one file is about one pool" in err
    assert now() == OLD
