# SPDX-License-Identifier: Apache-2.0
"""Wrong files, options and classes: one sentence with the place, the value and what is allowed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from small_suites import EXPECT, FEATURE, SCENARIO

from pytest_compilepool.conformance import subjects
from pytest_compilepool.conformance.expectations import read_expectations, stale_entries

USAGE = 4
TESTS = Path(__file__).parents[1]
REFERENCE = "reference_pool.requirements:ReferenceRequirements"


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
        (
            FEATURE + "share = 'yes'\n",
            ["features.toml:2: share = 'yes' is not allowed; allowed: true or false"],
        ),
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
        (EXPECT.replace("FAIL", "BROKEN"), ["status = ['BROKEN']", "PASS, FAIL, TIMEOUT, CRASH"]),
        (EXPECT.replace("FAIL", "PASS"), ["status = ['PASS']"]),
        (EXPECT + EXPECT.replace(">=2.8", ">=2.13"), ["expected.toml:8: torch = '>=2.13' overlaps '>=2.8'"]),
    ],
)
def test_expectations(own_suite, expectations, texts):
    refused(own_suite(expectations=expectations), *texts)


@pytest.mark.parametrize("versions", ["==2.13.0+cpu", "===foo", "==2.13.0.post1", ">=2.16.0.dev1"])
def test_ranges_that_tell_builds_apart_would_match_nothing(own_suite, versions):
    refused(
        own_suite(expectations=EXPECT.replace(">=2.8", versions)),
        f"torch = '{versions}'",
        "range of releases",
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (">2.13,!=2.13.*", "<3"),
        (">=2.10,!=2.10.*,!=2.11.*", ">=2.10,<2.12.1"),
        ("==2.13.*", "==2.13.1"),
        ("~=2.13", "==2.14.*"),
    ],
)
def test_ranges_that_overlap_however_they_are_written(own_suite, one, other):
    both = EXPECT.replace(">=2.8", one) + EXPECT.replace(">=2.8", other)
    refused(own_suite(expectations=both), "expected.toml:8: ", "overlaps")


def test_ranges_of_torch_for_a_pool_without_one(own_suite):
    refused(
        own_suite(expectations=EXPECT), "expected.toml:2: torch = '>=2.8' matches nothing", "name no torch"
    )


def test_two_tests_for_one_feature(own_suite):
    twice = SCENARIO + '\n@feature("jobs.add")\ndef test_again(bench): ...\n'
    both = "jobs.add has two tests: test_inner.py::test_add and test_inner.py::test_again"
    refused(own_suite(scenarios=twice), both)


@pytest.mark.parametrize(
    ("versions", "stale"),
    [
        ("<2.8", True),
        ("~=2.7.0", True),
        (">=2.14,<2.13", True),
        ("<=2.8", False),
        ("==2.8.0", False),
        ("==2.13.*", False),
    ],
)
def test_what_is_stale(tmp_path, versions, stale):
    found = tmp_path / "expected.toml"
    found.write_text(EXPECT.replace(">=2.8", versions))
    assert bool(stale_entries(read_expectations(found, {"jobs.add": None}))) is stale


def test_two_ranges_that_only_touch_are_fine(tmp_path):
    found = tmp_path / "expected.toml"
    found.write_text(EXPECT.replace(">=2.8", ">=2.8,<2.14") + EXPECT.replace(">=2.8", ">=2.14"))
    assert len(read_expectations(found, {"jobs.add": None})) == 2


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
    refused(result, "--compilepool-cell: '/nowhere/at/all' cannot be written")
    assert "passed" not in str(result.stdout)


@pytest.mark.parametrize(
    "text",
    [
        "expect = [1, 2]\n",
        'expect = [{feature = "jobs.add", status = ["FAIL"], bug = "https://example.org/1"}]\n',
        EXPECT.replace("[[expect]]", '[["expect"]]'),
    ],
)
def test_entries_that_are_written_otherwise_are_not_passed_over(own_suite, text):
    refused(own_suite(expectations=text), "expected.toml: 'expect' is there", "under such a line of its own")


def test_a_header_within_a_text_is_no_entry(own_suite):
    text = EXPECT + 'note = """\n[[expect]]\n"""\n' + EXPECT.replace("FAIL", "BROKEN")
    refused(own_suite(expectations=text), "expected.toml:11: status = ['BROKEN']")


def test_expectations_in_a_pipe(own_suite, pytester):
    os.mkfifo(pytester.path / "pipe")
    refused(own_suite("--compilepool-expectations=pipe"), "pipe: cannot be read: it is a pipe")


def test_a_pool_that_cannot_be_made_is_not_one_without_the_fault(own_suite):
    scenarios = """
        from pytest_compilepool.conformance.feature import feature
        from pytest_compilepool.suites.requirements import Requirements

        class Broken(Requirements):
            name = "broken"
            def make(self, processes, idle_seconds):
                raise ValueError("out of pools")

        @feature("jobs.add")
        def test_add(bench):
            bench.inject(start=77)
            bench.start(2)
        """
    result = own_suite(scenarios=scenarios, requirements="test_inner:Broken")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*ValueError: out of pools*"])


ASKED = """
    import sys, {modules}
    from pytest_compilepool.conformance.feature import feature
    from pytest_compilepool.suites.requirements import Requirements
    from reference_pool.requirements import ReferenceRequirements

    if "pytest" not in sys.modules:  # not in the session that collects it
        {statement}

    class Odd(ReferenceRequirements):
        name = "odd\\n\\x1b[31mpool"

    @feature("jobs.add")
    def test_add(bench):
        bench.ready()
    """


@pytest.mark.parametrize(
    ("modules", "statement"),
    [
        ("os", r"os.write(1, b'\xff\xfe')"),
        ("subprocess", "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"),
        ("threading", "threading.Thread(target=threading.Event().wait, args=(60,)).start()"),
    ],
    ids=["no-text", "process", "thread"],
)
def test_a_class_that_does_odd_things_is_asked_within_a_bound(own_suite, modules, statement):
    began = time.monotonic()
    result = own_suite(
        scenarios=ASKED.format(modules=modules, statement=statement), requirements="test_inner:Odd"
    )
    assert result.ret == 0, str(result.stdout)
    assert time.monotonic() - began < 40
    result.stdout.fnmatch_lines(["odd  ?31mpool: *"])


def test_a_file_that_lies_here_is_not_imported_by_whoever_asks(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TESTS))
    assert subjects.ask(REFERENCE, ["linux"]).spec == REFERENCE
