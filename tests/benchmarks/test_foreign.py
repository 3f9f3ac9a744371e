# SPDX-License-Identifier: Apache-2.0
"""benchmarks/foreign.py: what it calls a new failure, and what a leak."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "foreign.py"
LEAK = '<properties><property name="compilepool.leaks" value="processes:python"/></properties>'


@pytest.fixture(scope="module")
def foreign():
    spec = importlib.util.spec_from_file_location("foreign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # dataclasses looks there for the module of an annotation.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "foreign", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def read(foreign, tmp_path):
    """A run that left these test cases: name -> what is inside."""

    def run(*cases):
        inside = "".join(f'<testcase classname="m" name="{name}">{text}</testcase>' for name, text in cases)
        xml = tmp_path / "run.xml"
        xml.write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")
        return foreign.read(xml, 0, 1.0)

    return run


@pytest.fixture
def new_failures(foreign):
    """What one test's outcomes are found to be: without, with, without again. None: it was not there."""

    def look(first, ended, second):
        def one(outcome):
            others = {"other": "passed"}
            return foreign.Run(0, 1.0, {**others, **({} if outcome is None else {"it": outcome})})

        runs = {"absent": one(first), "auto": one(ended), "again": one(second)}
        return [(found.mode, found.test, found.with_) for found in foreign.differences(runs)]

    return look


def test_an_outcome_is_read_with_its_leak(read):
    failure, leak = "<failure>no</failure>", '<error message="x">m::b left behind: python</error>'
    run = read(
        ("a", ""), ("b", LEAK + leak), ("c", LEAK + failure + leak), ("d", "<skipped/>"), ("e", "<error/>")
    )
    assert run.outcomes == {
        "m::a": "passed",
        "m::b": "passed",
        "m::c": "failed",
        "m::d": "skipped",
        "m::e": "error",
    }
    assert run.leaks == {"m::b": "processes:python", "m::c": "processes:python"}


def test_a_failure_of_the_same_words_without_a_leak_counts(read):
    assert read(("a", "<error>left behind</error>")).outcomes == {"m::a": "error"}


def test_tests_of_one_name_are_told_apart(read):
    assert read(("a", ""), ("a", "<failure/>")).outcomes == {"m::a": "passed", "m::a (2)": "failed"}


@pytest.mark.parametrize("ended", ["failed", "error"])
def test_what_passed_twice_and_fails_is_new(new_failures, ended):
    assert new_failures("passed", ended, "passed") == [("auto", "it", ended)]
    assert new_failures("skipped", ended, "passed") == [("auto", "it", ended)]


def test_what_is_not_there_any_more_is_new(new_failures):
    assert new_failures("passed", None, "passed") == [("auto", "it", "")]


@pytest.mark.parametrize(
    ("first", "ended", "second"),
    [
        ("passed", "passed", "passed"),
        ("failed", "failed", "failed"),
        ("failed", "passed", "failed"),
        ("failed", "failed", "passed"),
        ("passed", "failed", "failed"),
        ("passed", "failed", None),
        ("passed", "skipped", "passed"),
    ],
)
def test_what_fails_by_itself_is_not(new_failures, first, ended, second):
    assert new_failures(first, ended, second) == []


def test_a_run_without_a_result_is_new(foreign):
    good, none = foreign.Run(0, 1.0, {"it": "passed"}), foreign.Run(-9, 600.0)
    (found,) = foreign.differences({"absent": good, "fail": none, "again": good})
    assert (found.mode, found.test, found.with_) == ("fail", "the whole run", "no result (-9)")


def test_a_run_that_is_over_its_limit_is_ended(foreign, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import threading\n\ndef test_it():\n    threading.Event().wait(300)\n"
    )
    suite = foreign.Suite("", ("test_it.py",), limit=1)
    run = foreign.run(Path(sys.executable), suite, tmp_path, tmp_path / "it.xml", ("-p", "no:compilepool"))
    assert run.outcomes == {}
    assert run.status == -9
    assert run.seconds < 15


def test_the_table_has_a_row_a_suite_and_all_that_leaked(foreign):
    good = foreign.Run(0, 1.0, {"it": "passed"})
    leaky = foreign.Run(1, 2.0, {"it": "passed"}, {"it": "threads:x"})
    lines = foreign.table({"click": {"absent": good, "auto": good, "fail": leaky, "again": good}})
    assert lines[2] == "| click==8.5.1 | 1 passed | 1, 1, 2, 1 | 0 | 0, 0 | 0, 1 |"
    assert lines[3:] == ["click: it left behind: threads:x"]


def test_each_suite_is_in_the_page(foreign):
    page = (SCRIPT.parents[1] / "docs/explanation/other-suites.md").read_text()
    for name, suite in foreign.SUITES.items():
        assert f"| {(suite.package or name).replace('==', ' ')}" in page
