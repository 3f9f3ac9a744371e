# SPDX-License-Identifier: Apache-2.0
"""Sidecars that are started before the test that needs them: when, when not, and what becomes of them."""

from __future__ import annotations

import pytest
from tiers import further

pytestmark = pytest.mark.usefixtures("pool_here")

HELPERS = """
import os
import time

import pytest
from pytest_compilepool import proctree
from pytest_compilepool.workloads import jobs

def sidecars():
    rows = proctree.table()
    below = [row for row in rows.values() if row.parent == os.getpid() and not row.dead]
    return {row.pid for row in below if any("compile_worker" in part for part in proctree.command(row.pid))}

def wait_for_sidecars(number, seconds=30):
    deadline = time.monotonic() + seconds
    while len(sidecars()) < number:
        assert time.monotonic() < deadline, f"{sidecars()} after {seconds} s, not {number}"
        time.sleep(0.01)
    return sidecars()
"""

IMPORTS = "import torch\n" + HELPERS


def test_it_starts_while_others_run_and_is_the_one_that_is_handed_out(inner):
    result = inner(
        IMPORTS
        + """
from torch._inductor.async_compile import AsyncCompile

def test_needs_none():
    assert len(sidecars()) == 1
    # torch does not know it: what this test would compile has nothing to do with it.
    assert AsyncCompile.process_pool.cache_info().currsize == 0
    test_needs_none.seen = sidecars()

@pytest.mark.skip(reason="x")
def test_skipped(compile_pool):
    pass

def test_pool(compile_pool, fresh_compile_caches):
    assert {compile_pool.sidecar.pid} == test_needs_none.seen == sidecars()
    assert AsyncCompile.process_pool() is compile_pool.torch_pool
    told = [event.what for event in compile_pool.timeline]
    assert told[:2] == ["warm", "started ahead"] and "ready" in told, told
    assert compile_pool.submit(jobs.add, 1, 1).result(30) == 2

def test_again(compile_pool):
    assert {compile_pool.sidecar.pid} == test_needs_none.seen
""",
        "--compilepool-leaks=fail",
        "-v",
    )
    result.assert_outcomes(passed=3, skipped=1)
    result.stdout.fnmatch_lines(
        ["*pools started: 1 by fixtures (of which 1 ahead of their test), 0 by torch*"]
    )
    result.stdout.no_fnmatch_line("*was not used*")


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        (["--compilepool-prestart=off"], "def test_pool(compile_pool): pass"),
        *further(
            (["-k", "plain"], "def test_pool(compile_pool): pass"),
            (["--deselect", "test_inner.py::test_pool"], "def test_pool(compile_pool): pass"),
        ),
        (["--collect-only"], "def test_pool(compile_pool): pass"),
        ([], "@pytest.mark.skip\ndef test_pool(compile_pool): pass"),
        ([], "def test_pool(compile_pool_factory): pass"),
        (
            [],
            "@pytest.fixture(scope='session')\ndef compile_pool_processes(): return 2\ndef test_pool(compile_pool): pass",
        ),
        (["--compilepool-start-method=fork"], "def test_pool(compile_pool): pass"),
    ],
    ids=["off", "-k", "deselected", "collect-only", "skipped", "factory", "overridden", "fork"],
)
def test_it_does_not_start(inner, arguments, source):
    """As the controller's last look at the collection sees it, and its first test."""
    result = inner(
        IMPORTS + "def test_plain():\n    assert not sidecars()\n" + source,
        "-x",
        *arguments,
        conftest=HELPERS
        + """
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    print(f"\\nsidecars while they are collected: {len(sidecars())}")

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    print(f"\\nsidecars at the end of collection: {len(sidecars())}")
""",
    )
    result.stdout.fnmatch_lines(
        ["*sidecars while they are collected: 0", "*sidecars at the end of collection: 0"]
    )
    assert result.ret == 0


def test_without_torch_in_the_collection_nothing_imports_it(inner):
    result = inner(
        HELPERS
        + """
import sys

def test_plain():
    assert "torch" not in sys.modules and not sidecars()

def test_pool(compile_pool):
    assert {compile_pool.sidecar.pid} == sidecars()
""",
        "-p",
        "no:cacheprovider",
    )
    result.assert_outcomes(passed=2)


def test_who_takes_tests_out_afterwards_has_it_ended(inner):
    result = inner(
        IMPORTS + "def test_plain():\n    assert not sidecars()\ndef test_pool(compile_pool): pass\n",
        conftest=HELPERS
        + """
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    print(f"\\nsidecars before: {len(sidecars())}")
    items[:] = [item for item in items if item.name == "test_plain"]
""",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*sidecars before: 1"])


def test_a_collection_that_fails_leaves_none(inner, pytester):
    pytester.makepyfile(test_zz="raise ValueError('not to be collected')")
    result = inner(IMPORTS + "def test_pool(compile_pool): pass\n", "--compilepool-leaks=fail")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*not to be collected*"])
    result.stdout.no_fnmatch_line("*left at the end*")


def test_one_that_does_not_fit_or_has_died_is_replaced_and_told_of(inner):
    result = inner(
        IMPORTS
        + """
import signal

def test_kills_it():
    (pid,) = sidecars()
    key = proctree.lookup(pid).key
    os.kill(pid, signal.SIGKILL)
    assert proctree.wait_gone([key], 30) == []

def test_pool(compile_pool):
    assert compile_pool.submit(jobs.add, 1, 1).result(30) == 2
""",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*the one that was started ahead was not used: *"])
    result = inner(
        IMPORTS
        + """
@pytest.fixture(scope="session", autouse=True)
def variable():
    os.environ["MADE_LATER"] = "1"
    yield
    del os.environ["MADE_LATER"]

def test_pool(compile_pool):
    assert compile_pool.submit(jobs.environment, ["MADE_LATER"]).result(30) == {"MADE_LATER": "1"}
    assert {compile_pool.sidecar.pid} == sidecars()
""",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*the one that was started ahead was not used: environment changed: MADE_LATER*"]
    )


def test_what_is_collected_later_may_change_what_it_needs(inner, pytester):
    """Two folders without an `__init__.py`: pytest puts each into sys.path when it comes to it."""
    for number in (1, 2):
        folder = pytester.mkdir(f"folder{number}")
        (folder / f"test_in_{number}.py").write_text("def test_pool(compile_pool): pass\n")
    result = inner(
        IMPORTS + "def test_aaa():\n    assert len(sidecars()) == 1\n",
        "test_inner.py",
        "folder1",
        "folder2",
        conftest="import torch\n",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["*pools started: 2 by fixtures (of which 1 ahead of their test), 0 by torch*"]
    )
    result.stdout.no_fnmatch_line("*was not used*")


def test_a_worker_of_xdist_starts_it_for_the_test_that_comes_next(inner):
    pytest.importorskip("xdist")
    result = inner(
        IMPORTS
        + """
@pytest.mark.parametrize("number", range(2))
def test_plain(number):
    assert len(sidecars()) == number
    test_plain.seen = sidecars()

def test_pool(compile_pool):
    assert {compile_pool.sidecar.pid} == test_plain.seen

def test_last():
    pass
""",
        "-p",
        "xdist",
        "-n1",
    )
    result.assert_outcomes(passed=4)


SPARE = (
    IMPORTS
    + """
seen = []

def test_cold(cold_compile_pool):
    mine = cold_compile_pool.sidecar.pid
    seen.append(mine)
    seen.append((wait_for_sidecars(2) - {mine}).pop())

def test_plain():
    assert sidecars() == {seen[1]}

def test_spoils_it(compile_pool):
    assert compile_pool.sidecar.pid == seen[1]
    seen.append((wait_for_sidecars(2) - {seen[1]}).pop())

@pytest.mark.compilepool(isolation="sidecar")
def test_own(compile_pool):
    assert compile_pool.sidecar.pid == seen[2]
    # Whoever comes next shares, and there is one to share.
    assert sidecars() == {seen[1], seen[2]}

def test_shares(compile_pool):
    assert compile_pool.sidecar.pid == seen[1]
    assert sidecars() == {seen[1]}
"""
)


def test_a_spare_is_started_for_who_needs_one_of_its_own(inner):
    result = inner(SPARE, "--compilepool-spare=on", "--compilepool-leaks=fail")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        ["*pools started: 3 by fixtures (of which 3 ahead of their test), 0 by torch*"]
    )


@pytest.mark.parametrize(
    ("available", "spares"),
    [("2 * (cost.sidecar + 2 * cost.worker)", 0), *further(("2 * (cost.sidecar + 100 * cost.worker)", 1))],
    ids=["short", "enough"],
)
def test_a_spare_has_its_place_within_the_memory_policy(inner, available, spares):
    """Where memory would allow only fewer processes than the test is to have, there is no spare."""
    result = inner(
        IMPORTS
        + f"""
def test_cold(cold_compile_pool):
    # The plugin decides before this runs: what it has started is there by now.
    assert len(sidecars()) == 1 + {spares}

@pytest.mark.compilepool(isolation="sidecar")
def test_own(compile_pool):
    assert len(compile_pool.workers) in (2, 4)
""",
        "--compilepool-spare=on",
        "--compilepool-processes=4",
        conftest=HELPERS
        + f"""
import dataclasses
from pytest_compilepool.pool import policy

real = policy.memory_budget

def budget():
    found, cost = real(), policy.GPU_COST if policy.gpu_count().count else policy.CPU_COST
    return dataclasses.replace(found, available={available}) if sidecars() else found

policy.memory_budget = budget
""",
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "arguments",
    [["--compilepool-prestart=yes"], ["--compilepool-spare=1"], ["--compilepool-prime=hopper"]],
    ids=["prestart", "spare", "prime"],
)
def test_bad_values_get_a_sentence(inner, arguments):
    result = inner("def test_it(): pass", *arguments)
    assert result.ret == 4
    option, _, value = arguments[0].partition("=")
    result.stderr.fnmatch_lines([f"ERROR: {option}: '{value}' is not allowed; allowed: *"])


def test_a_session_whose_sidecars_are_primed(inner):
    pytest.importorskip("triton")
    result = inner(
        IMPORTS
        + """
def test_pool(compile_pool):
    assert str(compile_pool.state) == "PRIMED"

def test_again(compile_pool):
    assert str(compile_pool.state) == "PRIMED"
    assert [event.what for event in compile_pool.timeline] == ["wakeup"]
""",
        "--compilepool-prime=cuda:90",
        "--compilepool-leaks=fail",
    )
    result.assert_outcomes(passed=2)
