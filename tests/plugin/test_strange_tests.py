# SPDX-License-Identifier: Apache-2.0
"""Errors of a test's own are shown without a frame of this package; a test that patches getpid is judged as any other."""

from __future__ import annotations

import textwrap

import pytest

CONFTEST = """
import pytest

def pytest_runtest_setup(item):
    if item.name == "test_setup":
        raise RuntimeError("mine")

def pytest_runtest_teardown(item):
    if item.name == "test_teardown":
        raise RuntimeError("mine")

@pytest.fixture
def broken():
    raise RuntimeError("mine")

@pytest.fixture
def late():
    yield
    raise RuntimeError("mine")

@pytest.fixture(scope="module")
def wide():
    raise RuntimeError("mine")
"""

TESTS = """
def test_setup(): pass
def test_teardown(): pass
def test_broken(broken): pass
def test_late(late): pass
def test_wide(wide): pass
def test_call(): raise RuntimeError("mine")
"""


@pytest.mark.parametrize("leaks", ["off", "warn"])
def test_an_error_is_shown_without_frames_of_ours(inner, leaks):
    result = inner(TESTS, f"--compilepool-leaks={leaks}", "-p", "no:randomly", conftest=CONFTEST)
    result.assert_outcomes(failed=1, errors=5, passed=2)
    said = result.stdout.str()
    assert said.count("E   ") == 6
    shown = said[said.index("= ERRORS =") :]
    assert "pytest_compilepool" not in shown


PATCHES = """
import os

def test_patches():
    os.getpid = lambda: 42
    os.environ["LEFT_BY_THE_FIRST"] = "1"

def test_next():
    os.environ["LEFT_BY_THE_NEXT"] = "1"
"""


def test_a_test_that_leaves_getpid_patched_is_judged_and_so_is_the_next(inner):
    result = inner(PATCHES, "--compilepool-leaks=warn", "-p", "no:randomly")
    assert result.ret == 0
    said = result.stdout.str()
    assert "LEFT_BY_THE_FIRST" in said
    assert "LEFT_BY_THE_NEXT" in said


def test_an_error_of_a_pool_is_shown_at_the_line_of_the_test(inner):
    pytest.importorskip("torch")
    source = """
        from pytest_compilepool.pool.facade import CompilePool
        from pytest_compilepool.workloads import jobs

        def test_too_early():
            CompilePool(2).submit(jobs.echo, 1)
    """
    result = inner(textwrap.dedent(source))
    result.assert_outcomes(failed=1)
    said = result.stdout.str()
    assert "PoolClosed: submit: this pool was not warmed yet: call warm() first" in said
    assert "facade.py" not in said
    assert "core.py" not in said
