# SPDX-License-Identifier: Apache-2.0
"""With pytest-rerunfailures and pytest-repeat: each attempt is told apart in the record, and judged for itself."""

from __future__ import annotations

import importlib.util

import pytest

from pytest_compilepool import sessionrecord

FLAKY = """
import os, pathlib

COUNT = pathlib.Path("count")

def test_flaky():
    number = int(COUNT.read_text()) + 1 if COUNT.exists() else 1
    COUNT.write_text(str(number))
    if number == 1:
        os.environ["PLANTED"] = "by the first attempt"
        assert False, "as it was to"
    if number == LAST:
        os._exit(5)
"""

needs_reruns = pytest.mark.skipif(
    importlib.util.find_spec("pytest_rerunfailures") is None, reason="needs pytest-rerunfailures"
)


@pytest.fixture
def state(tmp_path):
    return {"COMPILEPOOL_STATE": str(tmp_path / "state")}


def accounts(state):
    from pathlib import Path

    return [
        sessionrecord.read_account(path) for path in sessionrecord.records(Path(state["COMPILEPOOL_STATE"]))
    ]


@needs_reruns
def test_the_attempt_that_was_running_is_known(inner, state):
    options = ("-p", "pytest_rerunfailures", "--reruns=3", "--compilepool-leaks=warn")
    result = inner(FLAKY.replace("LAST", "2"), *options, environment=state)
    assert result.ret == 5
    (account,) = accounts(state)
    assert (account.running, account.attempt) == ("test_inner.py::test_flaky", 2)


@needs_reruns
def test_a_leak_belongs_to_the_attempt_that_left_it(inner, state):
    options = ("-p", "pytest_rerunfailures", "--reruns=3", "--compilepool-leaks=warn", "-rA")
    result = inner(FLAKY.replace("LAST", "0"), *options, environment=state)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 passed*1 rerun*"])
    assert result.stdout.str().count("environ: PLANTED") == 1
    assert accounts(state) == []


@pytest.mark.skipif(importlib.util.find_spec("pytest_repeat") is None, reason="needs pytest-repeat")
def test_repeats_have_names_of_their_own(inner, state):
    source = FLAKY.replace("assert False", "pass #").replace("LAST", "3")
    result = inner(
        source, "-p", "pytest_repeat", "--count=5", "--compilepool-leaks=warn", "-x", environment=state
    )
    assert result.ret == 5
    (account,) = accounts(state)
    assert account.running == "test_inner.py::test_flaky[3-5]"
    assert account.ended == 2
