# SPDX-License-Identifier: Apache-2.0
"""Whole sessions with real pools: what is printed, what is left, what the exit status says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("pool_here")

EXAMPLE = Path(__file__).parents[2] / "examples" / "test_four.py"
NAMED = (
    "*pools: compile*",
    "*Made by: *test_inner.py:* in test_leaks_on_purpose*",
    "*threads: forgotten-thread*",
    "*fds: /*",
    "*environ: FORGOTTEN_VARIABLE*",
)

LEAKS_A_VARIABLE = """
    import os, pytest

    @pytest.mark.compilepool()
    def test_leaks():
        os.environ["PLANTED"] = "1"

    def test_next():
        assert "PLANTED" not in os.environ
"""


def test_four_tests(inner):
    """It must show, point 2."""
    result = inner(EXAMPLE.read_text(), "-q")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["...L.*", *NAMED, "4 passed, 1 leaked in *"])
    assert result.ret == 0


def test_four_tests_under_xdist(inner):
    result = inner(EXAMPLE.read_text(), "-p", "xdist", "-n", "2", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*LEAKED*test_leaks_on_purpose*"])
    result.stdout.fnmatch_lines(["*seconds * n *", *NAMED])
    assert result.ret == 0


def test_fail_mode_fails_the_test_that_leaked(inner, pytester):
    result = inner(LEAKS_A_VARIABLE, "--compilepool-leaks=fail", "--junitxml=junit.xml")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaks*", "*environ: PLANTED*"])
    assert result.ret == 1
    properties = {
        element.get("name"): element.get("value")
        for element in ET.parse(pytester.path / "junit.xml").iter("property")
    }
    assert properties["compilepool.leaks"] == "environ:PLANTED"


def test_fail_mode_stops_with_x(inner):
    result = inner(LEAKS_A_VARIABLE, "--compilepool-leaks=fail", "-x")
    result.assert_outcomes(passed=1, errors=1)


def test_off_mode_looks_at_nothing(inner):
    result = inner(LEAKS_A_VARIABLE, "--compilepool-leaks=off")
    result.assert_outcomes(passed=1, failed=1)  # the second test finds what the first left
    result.stdout.no_fnmatch_line("*leaked*")


def test_warn_mode_looks_at_every_test(inner):
    source = LEAKS_A_VARIABLE.replace("@pytest.mark.compilepool()", "")
    quiet = inner(source)
    quiet.stdout.no_fnmatch_line("*leaked*")
    result = inner(source, "--compilepool-leaks=warn")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*environ: PLANTED*", "*1 leaked*"])


def test_an_error_of_the_test_comes_before_its_leaks(inner):
    result = inner(
        """
        import os, pytest

        @pytest.fixture
        def broken():
            yield
            raise RuntimeError("planted teardown error")

        @pytest.mark.compilepool()
        def test_leaks(broken):
            os.environ["PLANTED"] = "1"
        """,
        "--compilepool-leaks=fail",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*planted teardown error*", "*environ: PLANTED*"])


def test_allowed_leaks_are_quiet_and_unused_allowances_are_told(inner):
    result = inner(
        """
        import os, pytest

        @pytest.mark.compilepool_leaks(allow=["environ:PLANTED_*", "threads"], reason="planted here")
        def test_leaks():
            os.environ["PLANTED_ONE"] = "1"
        """
    )
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*leaked*")
    result.stdout.fnmatch_lines(
        ["*test_leaks: *allows what did not leak: threads (planted here); take it out*"]
    )


def test_a_pool_of_a_wider_scope_is_not_the_first_tests_leak(inner):
    result = inner(
        """
        import os, pytest
        from pytest_compilepool.workloads import jobs

        @pytest.fixture(scope="module")
        def module_pool(compile_pool_factory):
            os.environ["MODULE_WIDE"] = "1"
            with compile_pool_factory(processes=2) as pool:
                yield pool
            del os.environ["MODULE_WIDE"]

        def test_one(module_pool):
            assert module_pool.submit(jobs.add, 1, 2).result(30) == 3

        def test_two(module_pool):
            assert module_pool.submit(jobs.add, 1, 2).result(30) == 3
        """,
        "--compilepool-leaks=fail",
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_a_wider_fixture_that_forgets_is_told_when_it_ends(inner):
    result = inner(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def module_wide(compile_pool_factory):
            os.environ["MODULE_WIDE"] = "1"
            compile_pool_factory(processes=2)
            yield

        def test_one(module_wide): pass
        def test_two(module_wide): pass
        """,
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*test_two LEAKED*", "*test_two left behind:*", "*pools: compile*", "*environ: MODULE_WIDE*"]
    )
    result.stdout.no_fnmatch_line("*test_one LEAKED*")


def test_a_killed_sidecar_fails_the_test_and_not_the_next(inner):
    """It must show, point 4; the last test never uses its dead pool, and is told all the same."""
    result = inner(
        """
        import os, signal, time
        from pytest_compilepool.workloads import jobs

        def test_killed(compile_pool):
            future = compile_pool.submit(jobs.sleep_after_touch, "started", 600)
            jobs.wait_for("started", 30)
            os.kill(compile_pool.sidecar.pid, signal.SIGKILL)
            future.result()

        def test_next(compile_pool):
            assert compile_pool.submit(jobs.add, 1, 2).result(30) == 3

        def test_killed_and_not_used(compile_pool):
            os.kill(compile_pool.sidecar.pid, signal.SIGKILL)

        def test_last(compile_pool):
            assert compile_pool.submit(jobs.add, 1, 2).result(30) == 3
        """,
        "--durations=0",
        "--durations-min=4.9",
    )
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_killed_and_not_used*",
            "*compile_pool: the compile pool's sidecar (pid *) was killed by SIGKILL*",
            "*SidecarDied: the compile pool's sidecar (pid *) was killed by SIGKILL with 1 job pending*",
            "*- compile pool -*",
            "*state BROKEN*",
        ]
    )
    result.stdout.no_fnmatch_line("*s call *test_killed*")


def test_a_leaked_pool_is_told_once(inner):
    """Its threads, pipes and the settings that it needs are parts of it, and go with it."""
    result = inner(
        """
        from torch._inductor import config

        def test_leaks(compile_pool_factory):
            compile_pool_factory(processes=3)

        def test_next(compile_pool_factory):
            assert config.compile_threads != 3
        """,
    )
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert text.count("Silence:") == 1
    assert 'allow=["pools:compile"]' in text


def test_a_pool_that_torch_makes_by_itself_is_reported_and_ended(inner):
    result = inner(
        """
        import psutil

        def test_one():
            import torch._inductor.config as config
            from torch._inductor.async_compile import AsyncCompile

            config.compile_threads = 2
            AsyncCompile.warm_pool()

        def test_two():
            from torch._inductor.async_compile import AsyncCompile

            assert psutil.Process().children() == []
            assert AsyncCompile.process_pool.cache_info().currsize == 0
        """
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*1 by torch*", "*pools: compile*", "*Made by:*test_inner.py:* in test_one*"]
    )


COUNTED = """
import json, os, threading, psutil, pytest
import torch._inductor.async_compile

def count():
    return {
        "processes": len(psutil.Process().children(recursive=True)),
        "threads": sorted(t.name for t in threading.enumerate()),
        "os_threads": psutil.Process().num_threads(),
        "fds": sorted(os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]
                      for fd in os.listdir("/proc/self/fd")
                      if os.path.lexists(f"/proc/self/fd/{fd}")),
        "environ": sorted(os.environ.items()),
    }

# The sidecar may start as soon as there is a test that wants it.
@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    session.config.before_first = count()

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    yield
    counts = [session.config.before_first, count()]
    with open("counts.json", "w") as file:
        json.dump(counts, file)
"""


def test_two_hundred_tests_leave_nothing(inner):
    """It must show, point 3: processes, threads and fds before the first test and after the last."""
    result = inner(
        """
        import pytest
        from pytest_compilepool.workloads import jobs

        @pytest.mark.parametrize("number", range(200))
        def test_pool(compile_pool, number):
            assert compile_pool.submit(jobs.add, number, 1).result(30) == number + 1
        """,
        "-q",
        "--compilepool-leaks=fail",
        conftest=COUNTED,
        timeout=170,
    )
    result.assert_outcomes(passed=200)
    before, after = json.loads(Path("counts.json").read_text())
    ignored = "PYTEST_CURRENT_TEST"
    for counts in (before, after):
        counts["environ"] = [pair for pair in counts["environ"] if pair[0] != ignored]
        # torch's own health thread (2.14 and later) looks every 2 s whether it should end.
        counts["threads"] = [name for name in counts["threads"] if name != "InductorSubprocHealth"]
    del before["os_threads"], after["os_threads"]
    assert after == before
    assert before["processes"] == 0
    result.stdout.fnmatch_lines(["*pools started: 1 by fixtures*", "wakeup * 199 *"])
