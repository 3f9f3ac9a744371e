# SPDX-License-Identifier: Apache-2.0
"""Nobody waits for jobs that nobody wants any more: not the end of a session, and not Ctrl-C."""

from __future__ import annotations

import re
import time

import pytest
from tiers import further

pytest.importorskip("torch")

NEVER = 100_000.0


@pytest.mark.parametrize(
    ("options", "hurry", "least", "most"),
    [({}, True, 0.0, 5.0), *further(({}, False, 5.0, 30.0)), ({"jobs_timeout": 0.3}, False, 0.3, 5.0)],
)
def test_a_test_that_ctrl_c_hit_has_its_jobs_not_waited_for(options, hurry, least, most):
    from pytest_compilepool.pool.manager import PoolManager, Request

    manager = PoolManager(**options)
    try:
        pool = manager.acquire(Request(2))
        pool.submit(time.sleep, NEVER)
        manager.hurry = hurry
        began = time.monotonic()
        manager.release(pool)
        assert least <= time.monotonic() - began < most
    finally:
        manager.close_all(0.1)


CONFTEST = """
import pytest
from pytest_compilepool.keys import SESSION

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    print("in a hurry:", session.config.stash[SESSION].pools.manager.hurry)
"""


@pytest.mark.parametrize(
    ("what", "hurry"),
    [("raise KeyboardInterrupt", True), *further(("pytest.exit('enough')", True)), ("assert False", False)],
)
def test_ctrl_c_is_heard_before_its_test_is_torn_down(inner, what, hurry):
    result = inner(f"import pytest\ndef test_it(compile_pool):\n    {what}\n", "-s", conftest=CONFTEST)
    result.stdout.fnmatch_lines([f"*in a hurry: {hurry}"])
    result.stdout.fnmatch_lines(["pools started: 1 by fixtures*, 0 by torch; *"])


LEFT = """
import pathlib, time, pytest
from pytest_compilepool.workloads import jobs

def test_it(compile_pool_factory):
    # One that does not hear SIGTERM: torch's own shutdown waits for it.
    taken = pathlib.Path("taken").absolute()
    compile_pool_factory(2).submit(jobs.ignore_sigterm_and_wait, str(taken), 3600.0)
    deadline = time.monotonic() + 60
    while not taken.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
"""


@pytest.mark.parametrize(
    ("options", "least", "most"), [([], 2.0, 12.0), *further((["--compilepool-end-timeout=0.3"], 0.3, 2.9))]
)
def test_the_end_of_a_session_waits_for_no_job(inner, options, least, most):
    # Where nobody looks for leaks, the end of the session is what ends this one.
    result = inner(LEFT, "--compilepool-shutdown-timeout=60", "--compilepool-leaks=off", *options)
    result.assert_outcomes(passed=1)
    row = re.search(r"^shutdown +1 +([0-9.]+)", result.stdout.str(), re.MULTILINE)
    assert row is not None, result.stdout.str()
    assert least < float(row[1]) < most


LIMITS = """
import time, pytest
from pytest_compilepool.pool.errors import PoolTimeout
from pytest_compilepool.session import Session

def test_it(compile_pool, request):
    job = compile_pool.submit(time.sleep, 100_000.0)
    with pytest.raises(PoolTimeout, match="workers had 0.4 s to go"):
        compile_pool.quiesce()
    assert Session.of(request.config).pools.manager._jobs_timeout == 0.2
"""


def test_what_a_session_wants_to_change_it_can(inner):
    result = inner(LIMITS, "--compilepool-quiesce-timeout=0.4", "--compilepool-jobs-timeout=0.2")
    result.assert_outcomes(passed=1)
