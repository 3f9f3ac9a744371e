# SPDX-License-Identifier: Apache-2.0
"""What is not the test's own: fixtures of a wider scope, other sessions, reruns, forks. None of it may be harmed."""

from __future__ import annotations

import pytest
from tiers import further

pytestmark = pytest.mark.usefixtures("pool_here")


def test_a_wider_fixture_that_nobody_watched_may_put_back_what_it_changed(inner, pytester):
    """It was set up for a test that was not looked at, and ends in one that is."""
    pytester.makepyfile(
        test_z="""
        import os

        def test_after():
            assert "MODULE_WIDE" not in os.environ
        """
    )
    result = inner(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def wide():
            os.environ["MODULE_WIDE"] = "1"
            yield
            del os.environ["MODULE_WIDE"]

        def test_one(wide): pass
        def test_two(wide, single_threaded_compile): pass
        """
    )
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*leaked*")


@pytest.mark.parametrize("how", ["raise KeyboardInterrupt", *further("pytest.exit('planted')")])
def test_session_fixtures_are_ended_by_pytest_and_not_by_us(inner, how):
    result = inner(
        f"""
        import pytest, subprocess, sys

        @pytest.fixture(scope="session")
        def server():
            process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            yield process
            print("\\nALIVE AT ITS TEARDOWN:", process.poll() is None)
            process.communicate()

        def test_one(compile_pool, server):
            {how}
        """,
        "-s",
    )
    result.stdout.fnmatch_lines(["*ALIVE AT ITS TEARDOWN: True*"])
    result.stdout.no_fnmatch_line("*left at the end*")


def test_a_fork_that_comes_back_touches_nothing_of_its_parents(inner):
    result = inner(
        """
        import os, sys, warnings
        from pytest_compilepool.workloads import jobs

        def test_forks(compile_pool):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pid = os.fork()
            if pid == 0:
                raise SystemExit(0)  # goes through pytest, in the child, and through our teardown
            os.waitpid(pid, 0)
            assert compile_pool.submit(jobs.add, 1, 2).result(30) == 3
            assert len(compile_pool.workers) == compile_pool.processes
        """,
        timeout=90,
    )
    assert "1 passed" in result.stdout.str()


def test_a_rerun_is_judged_for_itself(inner, pytester):
    """As pytest-rerunfailures does it: the protocol of one item, twice."""
    result = inner(
        """
        import os, pytest

        RUNS = []

        @pytest.mark.compilepool()
        def test_leaks_the_first_time():
            RUNS.append(1)
            if len(RUNS) == 1:
                os.environ["PLANTED"] = "1"
        """,
        "-v",
        conftest="""
            from pytest import hookimpl

            @hookimpl(tryfirst=True)
            def pytest_runtest_protocol(item, nextitem):
                if hasattr(item, "ran"):
                    return None
                item.ran = True
                item.ihook.pytest_runtest_protocol(item=item, nextitem=item)
                item._initrequest()
                item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
                return True
        """,
    )
    assert result.stdout.str().count("LEAKED") == 1
    result.stdout.fnmatch_lines(["*2 passed, 1 leaked*"])


def test_a_pool_that_is_asked_for_in_the_test_is_asked_for(inner):
    result = inner(
        """
        import os
        from pytest_compilepool.workloads import jobs

        def test_one(request):
            pool = request.getfixturevalue("compile_pool")
            assert pool.submit(jobs.add, 1, 2).result(30) == 3

        def test_two(request):
            request.getfixturevalue("compile_pool")
            os.environ["PLANTED"] = "1"

        def test_three():
            assert "PLANTED" not in os.environ
        """,
        "--compilepool-block",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*environ: PLANTED*"])


def test_what_is_allowed_is_not_told_at_the_end_either(inner):
    result = inner(
        """
        import pytest, threading

        @pytest.mark.compilepool_leaks(allow=["threads:keeper"], reason="planted")
        def test_one():
            threading.Thread(target=threading.Event().wait, name="keeper", daemon=True).start()
        """,
        "--compilepool-leaks=fail",
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*left at the end*")


def test_what_nobody_answers_for_fails_the_session(inner):
    """Started after the last test was judged: no test's leak, and yet left behind."""
    result = inner(
        """
        import pytest

        @pytest.mark.compilepool()
        def test_one(): pass
        """,
        "--compilepool-leaks=fail",
        conftest="""
            import subprocess

            def pytest_sessionfinish(session):
                subprocess.Popen(["sleep", "600"])
        """,
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*left at the end of the session:*", "*processes: sleep*"])


def test_a_session_within_a_session_gives_the_tag_back(inner):
    result = inner(
        """
        import os, pytest
        pytest_plugins = ["pytester"]
        seen = []

        @pytest.mark.compilepool()
        def test_one(pytester):
            seen.append(os.environ["COMPILEPOOL_SESSION"])
            pytester.makepyfile("import pytest\\n@pytest.mark.compilepool()\\ndef test_x(): pass")
            pytester.runpytest_inprocess("-p", "compilepool").assert_outcomes(passed=1)

        @pytest.mark.compilepool()
        def test_two():
            assert os.environ["COMPILEPOOL_SESSION"] == seen[0]
        """
    )
    result.assert_outcomes(passed=2)


BROKEN_CHECKER = """
    from pytest_compilepool.leaks.base import LeakChecker

    class Mine(LeakChecker):
        name = "mine"

        def measure(self):
            raise RuntimeError("planted")

    def pytest_compilepool_leak_checkers(config):
        return [Mine()]

    def pytest_compilepool_allowed_leak(item, leak):
        raise RuntimeError("planted hook")
"""


def test_a_checker_and_a_hook_that_fail_switch_nothing_off(inner):
    result = inner(
        """
        import os, pytest

        @pytest.mark.compilepool()
        def test_one():
            os.environ["PLANTED"] = "1"

        @pytest.mark.compilepool()
        def test_two():
            assert "PLANTED" not in os.environ
        """,
        conftest=BROKEN_CHECKER,
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*environ: PLANTED*"])
    assert result.stdout.str().count("RuntimeError: planted hook") == 1
    assert "mine" in result.stdout.str()


@pytest.mark.parametrize("returned", ["'text'", "Mine()", "[Mine]", "[object()]"])
def test_what_a_hook_gave_that_are_no_checkers(inner, returned):
    result = inner(
        "def test_one(): pass",
        conftest=BROKEN_CHECKER.replace("return [Mine()]", f"return {returned}"),
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: hook pytest_compilepool_leak_checkers: *LeakChecker*"])


def test_what_somebody_holds_is_reported_and_left_alone(inner):
    """An executor and a log file that a session fixture makes when they are first used."""
    result = inner(
        """
        import logging, pytest, subprocess

        HELD = {}

        @pytest.mark.compilepool()
        def test_first():
            HELD["server"] = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            HELD["file"] = open("log.txt", "w")

        @pytest.mark.compilepool()
        def test_second():
            assert HELD["server"].poll() is None
            HELD["file"].write("still open")
            HELD["file"].close()
            HELD["server"].communicate()
        """
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*processes: cat*", "*fds: *log.txt*", "*1 leaked*"])
