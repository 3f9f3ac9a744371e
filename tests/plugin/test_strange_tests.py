# SPDX-License-Identifier: Apache-2.0
"""Errors of a test's own are shown without a frame of ours; one that patches the standard library is judged as any other."""

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


SHORT_GRACE = ("-o", "compilepool_leak_grace=0.2", "-p", "no:randomly")

STANDS_STILL = """
import threading, time

import pytest

@pytest.fixture(scope="module")
def frozen():
    real = time.monotonic, time.sleep
    {patch}
    yield
    time.monotonic, time.sleep = real

def test_leaves_a_thread(frozen):
    threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()

def test_keeps_the_fixture(frozen):
    pass
"""


@pytest.mark.parametrize(
    "patch",
    ["time.monotonic = lambda: 5.0", "time.sleep = lambda seconds: pytest.fail('no sleeping')"],
    ids=["clock", "sleep"],
)
def test_a_wait_for_leaks_ends_where_the_tests_have_stopped_the_clock(inner, patch):
    source = STANDS_STILL.replace("{patch}", patch)
    result = inner(source, "--compilepool-leaks=fail", *SHORT_GRACE, timeout=60)
    assert result.ret == 1
    said = result.stdout.str()
    assert "daemon thread 'left-behind'" in said
    assert "no sleeping" not in said


NO_THREADS = """
import os, threading

def test_patches():
    threading.enumerate = lambda: []
    os.environ["LEFT_BY_THE_FIRST"] = "1"

def test_leaves_a_thread():
    threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()
"""


def test_threads_are_seen_where_a_test_has_left_enumerate_patched(inner):
    result = inner(NO_THREADS, "--compilepool-leaks=warn", *SHORT_GRACE)
    assert "daemon thread 'left-behind'" in result.stdout.str()


OTHER_ENVIRON = """
import os

REAL = os.environ

def test_replaces():
    os.environ = dict(os.environ)

def test_next():
    assert os.environ is REAL
"""


def test_an_environ_that_a_test_has_replaced_is_told_and_put_back(inner):
    result = inner(OTHER_ENVIRON, "--compilepool-leaks=fail", "-p", "no:randomly")
    result.assert_outcomes(passed=2, errors=1)
    assert "environ:os.environ" in result.stdout.str()
