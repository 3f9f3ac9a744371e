# SPDX-License-Identifier: Apache-2.0
"""From what a scenario does to what pytest says of it."""

from __future__ import annotations

import re
import textwrap

import pytest
from small_suites import EXPECT, FEATURE

from pytest_compilepool.matrix.cell import Result, read_cell

HEAD = """
    import os, signal, sys, threading, time
    from pytest_compilepool.conformance.bench import check
    from pytest_compilepool.conformance.feature import feature
    from pytest_compilepool.workloads import jobs

    @feature("jobs.add")
    def test_add(bench):
"""

KINDS = {
    "FAIL": 'check(2 + 2 == 5, "two and two are 4")',
    "TIMEOUT": 'bench.answer(bench.submit(jobs.wait_for, "/nowhere", 600), 0.2)',
    "CRASH": "os.kill(os.getpid(), signal.SIGKILL)",
}


def scenario(body: str) -> str:
    return f"{HEAD}        {body}\n"


def result_of(path) -> Result:
    cell = read_cell(path / "cell.json")
    assert cell.run["pool"] == "the reference pool"
    (found,) = cell.results.values()
    return found


@pytest.mark.parametrize("status", KINDS)
def test_what_is_not_kept_fails(own_suite, pytester, status):
    result = own_suite("--compilepool-cell=cell.json", scenarios=scenario(KINDS[status]))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*jobs.add: A pool MUST add.*", "*0 of 1 features could not*", f"unexpected: jobs.add: {status}: *"]
    )
    assert "Traceback" not in str(result.stdout)
    found = result_of(pytester.path)
    assert (found.status, found.got) == (status, status)
    assert found.signature


def test_a_scenario_that_stands_still_is_ended_and_says_where(own_suite, pytester):
    result = own_suite(
        "--compilepool-cell=cell.json",
        features=FEATURE + "limit = 2\n",
        scenarios=scenario("threading.Lock().acquire() and jobs.wait_for('/nowhere/where_it_stands', 600)"),
    )
    assert result.ret == 1
    found = result_of(pytester.path)
    assert found.status == "TIMEOUT"
    assert "in wait_for" in found.reason
    assert "jobs.py:wait_for" in found.signature
    assert found.duration < 20


def test_what_a_scenario_raises_by_mistake_has_its_traceback(own_suite, pytester):
    own_suite("--compilepool-cell=cell.json", scenarios=scenario("1 / 0"))
    found = result_of(pytester.path)
    assert found.status == "FAIL"
    assert found.reason.startswith("ZeroDivisionError: division by zero")
    assert "in test_add" in found.reason
    assert found.signature == "ZeroDivisionError: division by zero < test_inner.py:test_add"


def test_a_known_defect_is_no_failure(own_suite, pytester):
    # Expectations are by torch: a requirements class of one's own says which.
    result = own_suite(
        "--compilepool-cell=cell.json",
        scenarios=scenario(KINDS["FAIL"]) + VERSIONED,
        expectations=EXPECT,
        requirements="test_inner:Versioned",
    )
    assert result.ret == 0
    result.assert_outcomes(xfailed=1)
    result.stdout.fnmatch_lines(["known defect: jobs.add: FAIL: two and two are 4 (https://example.org/1)"])
    found = result_of(pytester.path)
    assert (found.status, found.got, found.expected) == ("XFAIL", "FAIL", ["FAIL"])
    assert found.bug == "https://example.org/1"


def test_another_defect_than_the_known_one_is_a_failure(own_suite):
    result = own_suite(
        scenarios=scenario(KINDS["TIMEOUT"]) + VERSIONED,
        expectations=EXPECT,
        requirements="test_inner:Versioned",
    )
    result.assert_outcomes(failed=1)


def test_a_known_defect_that_is_gone_is_loud(own_suite):
    result = own_suite(
        "-rA",
        scenarios=scenario("bench.ready(); bench.second_job()") + VERSIONED,
        expectations=EXPECT,
        requirements="test_inner:Versioned",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["unexpected pass: jobs.add: PASS: passes, but *expected.toml:2 expects FAIL*"]
    )


def test_what_differs_from_run_to_run_may_pass(own_suite):
    result = own_suite(
        scenarios=scenario("bench.ready(); bench.second_job()") + VERSIONED,
        expectations=EXPECT.replace('"FAIL"', '"FAIL", "PASS"'),
        requirements="test_inner:Versioned",
    )
    result.assert_outcomes(passed=1)


VERSIONED = """
    from reference_pool.requirements import ReferenceRequirements

    class Versioned(ReferenceRequirements):
        @property
        def versions(self):
            return {"torch": "2.13.0+cpu"}

        @property
        def never(self):
            \"\"\"Something that is nowhere.\"\"\"
            return False
"""


def test_where_nothing_could_be_tried_the_exit_status_is_5(own_suite):
    result = own_suite(
        features=FEATURE + 'needs = ["never"]\n',
        scenarios=scenario("pass") + VERSIONED,
        requirements="test_inner:Versioned",
    )
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        ["*1 of 1 features could not be tested here: 1 x never: Something that is nowhere"]
    )


@pytest.mark.parametrize("at_once", [(), ("-p", "xdist", "-n2")], ids=["one-process", "xdist"])
def test_a_stale_expectation_is_an_error_in_ci_mode_only(own_suite, at_once):
    stale = EXPECT.replace(">=2.8", "<2.8")
    versioned = {"scenarios": scenario("bench.ready()") + VERSIONED, "requirements": "test_inner:Versioned"}
    own_suite(*at_once, expectations=stale, **versioned).assert_outcomes(passed=1)
    result = own_suite(*at_once, "--compilepool-ci", expectations=stale, **versioned)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["stale expectation: *expected.toml:2: torch = '<2.8' holds no release from 2.8 on"]
    )


def test_modes_and_groups_select(own_suite):
    other = FEATURE.replace("jobs.add", "more.jobs").replace("smoke", "stress")
    both = (
        scenario("bench.ready()")
        + '\n    @feature("more.jobs")\n    def test_more(bench):\n        bench.ready()\n'
    )
    two = {"features": FEATURE + other, "scenarios": both}
    own_suite(**two).assert_outcomes(passed=1, deselected=1)
    own_suite("--compilepool-mode=stress", **two).assert_outcomes(passed=2)
    own_suite("--compilepool-mode=stress", "--compilepool-group=more", **two).assert_outcomes(
        passed=1, deselected=1
    )


def test_those_that_hang_are_spread_among_the_others(own_suite):
    letters = "abcdefgh"
    features = "".join(FEATURE.replace("jobs.add", f"jobs.{one}") for one in letters)
    scenarios = "from pytest_compilepool.conformance.bench import Unanswered\n" + "".join(
        textwrap.dedent(scenario("raise Unanswered('planted')" if one in "ab" else "pass"))
        .replace("jobs.add", f"jobs.{one}")
        .replace("test_add", f"test_{one}")
        for one in letters
    )
    entry = EXPECT.replace('torch = ">=2.8"\n', "").replace("FAIL", "TIMEOUT")
    known = "".join(entry.replace("jobs.add", f"jobs.{one}") for one in "ab")
    result = own_suite("-v", features=features, scenarios=scenarios, expectations=known)
    result.assert_outcomes(passed=6, xfailed=2)
    order = re.findall(r"::test_(\w) (?:PASSED|XFAIL)", result.stdout.str())
    places = [order.index(one) for one in "ab"]
    assert 0 < places[0] < places[1] - 1 < len(order) - 2


def test_nothing_is_left_behind_by_a_scenario(own_suite, tmp_path):
    pid = tmp_path / "pid"
    body = f"bench.ready(); bench.answer(bench.submit(jobs.spawn_grandchild, {str(pid)!r}, 600))"
    own_suite(scenarios=scenario(body)).assert_outcomes(passed=1)
    from pytest_compilepool import proctree

    row = proctree.lookup(int(pid.read_text()))
    assert row is None or row.dead or "time.sleep" not in " ".join(proctree.command(row.pid))


def test_an_expectation_without_versions_is_for_all(own_suite):
    always = EXPECT.replace('torch = ">=2.8"\n', "")
    result = own_suite("--compilepool-ci", scenarios=scenario(KINDS["FAIL"]), expectations=always)
    assert result.ret == 0
    result.assert_outcomes(xfailed=1)


def test_a_fault_that_does_not_reach_the_pool_shows_nothing(own_suite):
    """A pool without an interpreter of its own cannot come to harm this way: that is no verdict on it."""
    threads = """
    from concurrent.futures import ThreadPoolExecutor

    from pytest_compilepool.suites.requirements import Requirements

    class Threads(Requirements):
        quiesce = False

        def make(self, processes, idle_seconds):
            return ThreadPoolExecutor(processes)
"""
    result = own_suite(
        features=FEATURE + 'needs = ["linux"]\n',
        scenarios=scenario("bench.inject(start=7); bench.start(); bench.second_job()") + threads,
        requirements="test_inner:Threads",
    )
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        ["*1 of 1 features could not be tested here: 1 x the fault start could not be planted*"]
    )
