# SPDX-License-Identifier: Apache-2.0
"""Wrong files, options and classes: one sentence with the place, the value and what is allowed."""

from __future__ import annotations

import pytest
from small_suites import EXPECT, FEATURE

USAGE = 4


def refused(result: pytest.RunResult, *texts: str) -> None:
    output = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == USAGE, output
    assert "Traceback" not in output
    for text in texts:
        assert text in output


@pytest.mark.parametrize(
    ("features", "texts"),
    [
        (FEATURE + FEATURE, ["features.toml:9: id = 'jobs.add' is there twice; first at", "features.toml:2"]),
        (FEATURE.replace('"smoke"', '"fast"'), ["features.toml:2: mode = 'fast'", "smoke, standard, stress"]),
        (FEATURE.replace("MUST", "should"), ["features.toml:2: must = 'A pool should add.'"]),
        (FEATURE.replace("jobs.add", "Add"), ["features.toml:2: id = 'Add'"]),
        (FEATURE.replace('title = "Adds"\n', ""), ["features.toml:2: lacks 'title'"]),
        (FEATURE + "colour = 'red'\n", ["features.toml:2: has 'colour'; allowed: id, title"]),
        (FEATURE + "limit = 0\n", ["features.toml:2: limit = 0 is not allowed"]),
        (FEATURE + "needs = 'linux'\n", ["features.toml:2: needs = 'linux' is not allowed"]),
        (FEATURE.replace("jobs.add", "jobs.multiply"), ["the feature 'jobs.add' is not in", "features.toml"]),
        ("[[feature]\n", ["features.toml: cannot be read", "line 1"]),
        ("x = 1\n", ["features.toml: has 'x'; allowed: tables [[feature]]"]),
    ],
)
def test_the_manifest(own_suite, features, texts):
    refused(own_suite(features=features), *texts)


@pytest.mark.parametrize(
    ("expectations", "texts"),
    [
        (EXPECT.replace('bug = "https://example.org/1"\n', ""), ["expected.toml:2: lacks 'bug'"]),
        (EXPECT.replace("https://example.org/1", "#1"), ["expected.toml:2: bug = '#1'", "https://"]),
        (EXPECT.replace("jobs.add", "jobs.ad"), ["'jobs.ad' is not in the manifest; nearest: jobs.add"]),
        (EXPECT.replace(">=2.8", "2.8 or so"), ["expected.toml:2: torch = '2.8 or so'", "'>=2.8,<2.14'"]),
        (EXPECT.replace("FAIL", "BROKEN"), ["status = ['BROKEN']", "PASS, FAIL, HANG, CRASH"]),
        (EXPECT.replace("FAIL", "PASS"), ["status = ['PASS']"]),
        (EXPECT + EXPECT.replace(">=2.8", ">=2.13"), ["expected.toml:8: torch = '>=2.13' overlaps '>=2.8'"]),
    ],
)
def test_expectations(own_suite, expectations, texts):
    refused(own_suite(expectations=expectations), *texts)


def test_two_ranges_that_only_touch_are_fine(own_suite):
    below = EXPECT.replace(">=2.8", ">=2.8,<2.14")
    result = own_suite(expectations=below + EXPECT.replace(">=2.8", ">=2.14"))
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        ("nowhere.at.all:Pool", "nowhere.at.all cannot be imported"),
        ("reference_pool.requirements:Nobody", "reference_pool.requirements has no Nobody"),
        ("reference_pool.pool:socket", "is no class with a method make"),
        ("reference_pool.pool", "'reference_pool.pool' is not allowed; allowed: module:Class"),
        ("test_inner:LacksAll", "lacks the property linux"),
        ("test_inner:Raises", "cannot be asked: ZeroDivisionError"),
    ],
)
def test_the_requirements(own_suite, requirements, text):
    scenarios = """
        from pytest_compilepool.conformance.feature import feature
        from pytest_compilepool.suites.requirements import Requirements

        class LacksAll:
            name, versions = "lacks", {}
            def make(self, processes, idle_seconds): ...

        class Raises(Requirements):
            def make(self, processes, idle_seconds): ...
            @property
            def linux(self):
                return 1 / 0

        @feature("jobs.add")
        def test_add(bench): ...
        """
    result = own_suite(
        features=FEATURE + 'needs = ["linux"]\n', scenarios=scenarios, requirements=requirements
    )
    refused(result, "--compilepool-requirements", text)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--compilepool-mode=fast", "'fast' is not allowed; allowed: smoke, standard, stress"),
        ("--compilepool-group=kobs", "'kobs' is not allowed; allowed: jobs"),
        ("--compilepool-group=jobs,,", "allowed: names of groups, separated by commas"),
        ("--compilepool-expectations=nowhere.toml", "nowhere.toml: cannot be read"),
    ],
)
def test_options(own_suite, option, text):
    refused(own_suite(option), option.split("=")[0].removeprefix("--compilepool-expectations"), text)


def test_a_worker_of_xdist_says_it_at_its_test(own_suite):
    pytest.importorskip("xdist")
    result = own_suite("-p", "xdist", "-n", "1", features=FEATURE + FEATURE)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*features.toml:9: id = 'jobs.add' is there twice*"])


def test_a_cell_that_cannot_be_written(own_suite):
    result = own_suite("--compilepool-cell=/nowhere/at/all")
    output = "\n".join([*result.outlines, *result.errlines])
    assert result.ret not in (0, 5)
    assert "--compilepool-cell: '/nowhere/at/all' cannot be written" in output
