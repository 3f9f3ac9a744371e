# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear sentence with the value, where it came from and what is allowed; no traceback of ours."""

from __future__ import annotations

import pytest

PASSES = "def test_one(): pass"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--compilepool-processes=0", ["--compilepool-processes", "'0'", "1 to 1024"]),
        ("--compilepool-processes=-3", ["--compilepool-processes", "'-3'", "1 to 1024"]),
        ("--compilepool-processes=eight", ["--compilepool-processes", "'eight'", "1 to 1024"]),
        ("--compilepool-processes=", ["--compilepool-processes", "''", "1 to 1024"]),
        ("--compilepool-processes=9999", ["--compilepool-processes", "'9999'", "1 to 1024"]),
        (
            "--compilepool-start-method=thread",
            ["--compilepool-start-method", "'thread'", "subprocess, fork, spawn"],
        ),
        ("--compilepool-leaks=maybe", ["--compilepool-leaks", "'maybe'", "auto, off, warn, fail"]),
        ("--compilepool-missing=ignore", ["--compilepool-missing", "'ignore'", "skip, fail"]),
        ("--compilepool-ready-timeout=soon", ["--compilepool-ready-timeout", "'soon'", "seconds"]),
        ("--compilepool-ready-timeout=0", ["--compilepool-ready-timeout", "'0'", "more than 0"]),
        ("--compilepool-shutdown-timeout=nan", ["--compilepool-shutdown-timeout", "'nan'", "seconds"]),
        ("--compilepool-end-timeout=1_0", ["--compilepool-end-timeout", "'1_0'", "seconds"]),
        ("--compilepool-jobs-timeout=٣", ["--compilepool-jobs-timeout", "'٣'", "seconds"]),
        ("--compilepool-leak-grace=-1", ["--compilepool-leak-grace", "'-1'", "seconds"]),
    ],
)
def test_a_flag_that_is_not_allowed(inner, argument, words):
    refused(inner(PASSES, argument), words)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("compilepool_processes", "eight", ["ini option compilepool_processes", "'eight'", "1 to 1024"]),
        ("compilepool_processes", "", ["ini option compilepool_processes", "''", "1 to 1024"]),
        ("compilepool_leaks", "all", ["ini option compilepool_leaks", "'all'", "auto, off, warn, fail"]),
        ("compilepool_block", "perhaps", ["ini option compilepool_block", "'perhaps'", "true or false"]),
    ],
)
def test_an_ini_option_that_is_not_allowed(inner, pytester, option, value, words):
    pytester.makeini(f"[pytest]\n{option} = {value}\n")
    refused(inner(PASSES), words)


@pytest.mark.usefixtures("pool_here")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TORCHINDUCTOR_COMPILE_THREADS", "eight"),
        ("TORCHINDUCTOR_COMPILE_THREADS", "0"),
        ("VLLM_COMPILE_PROCESSES", "lots"),
        ("TORCHINDUCTOR_WORKER_START", ""),
    ],
)
def test_an_environment_variable_that_is_not_allowed(inner, variable, value):
    """Whoever wants a pool is refused, quiet or not; whoever wants none is not kept from running."""
    wants = "def test_one(compile_pool): pass"
    for quiet in ((), ("-q",)):
        refused(inner(wants, *quiet, environment={variable: value}), [variable, repr(value), "allowed"])
    result = inner(PASSES)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"compilepool: *no pool can be made: {variable}*"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("compile_pool_processes: 'eight'", ["fixture compile_pool_processes", "'eight'", "1 to 1024"]),
        (
            "compile_pool_ready_timeout: float('nan')",
            ["fixture compile_pool_ready_timeout", "nan", "seconds"],
        ),
        ("compile_pool_ready_timeout: 'abc'", ["fixture compile_pool_ready_timeout", "'abc'", "seconds"]),
        ("compile_cache_folder: None", ["fixture compile_cache_folder", "None", "folder"]),
    ],
)
@pytest.mark.usefixtures("pool_here")
def test_an_overridden_fixture_that_gives_nonsense(inner, override, words):
    name, _, value = override.partition(": ")
    scope = "function" if name == "compile_cache_folder" else "session"
    result = inner(
        "def test_one(fresh_compile_caches, compile_pool): pass",
        conftest=f"""
            import pytest

            @pytest.fixture(scope="{scope}")
            def {name}():
                return {value}
        """,
    )
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert "Traceback" not in text
    assert "pytest_compilepool/fixtures" not in text
    line = next(line for line in text.splitlines() if line.startswith(f"fixture {name}"))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("compilepool(processes=0)", ["processes=...", "0", "1 to 1024"]),
        ("compilepool(processes='many')", ["'many'", "1 to 1024"]),
        (
            "compilepool(processes=type('Mute', (), {'__repr__': lambda _: 1 / 0})())",
            ["<Mute without a repr>", "1 to 1024"],
        ),
        ("compilepool(processes=2.5)", ["2.5", "1 to 1024"]),
        ("compilepool(processes=True)", ["True", "1 to 1024"]),
        ("compilepool(start_method='thread')", ["'thread'", "subprocess, fork, spawn"]),
        ("compilepool(isolation='none')", ["'none'", "workers, sidecar"]),
        ("compilepool(ready_timeout=0)", ["ready_timeout=0", "more than 0"]),
        ("compilepool(process=2)", ["process"]),
        ("compilepool(2)", ["positional"]),
        ("compilepool_leaks(allow=['threads'])", ["reason"]),
        ("compilepool_leaks(allow=['threads'], reason=' ')", ["' '", "says why"]),
        ("compilepool_leaks(allow=[], reason='x')", ["allow=[]", "a list such as"]),
        ("compilepool_leaks(allow='threads', reason='x')", ["allow='threads'", "a list such as"]),
        ("compilepool_leaks(allow=['tread'], reason='x')", ["'tread'", "no leak checker", "threads"]),
    ],
)
def test_a_marker_that_is_not_allowed(inner, mark, words):
    source = f"""
        import pytest

        @pytest.mark.{mark}
        def test_one(): pass
    """
    refused(inner(source), [f"test_one: @pytest.mark.{mark.partition('(')[0]}", *words])


def test_markers_are_documented(inner):
    result = inner(PASSES, "--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.compilepool(*, processes, start_method, ready_timeout, isolation, target, offline): *",
            "@pytest.mark.compilepool_leaks(*, allow, reason): *",
        ]
    )


@pytest.mark.usefixtures("pool_here")
def test_a_pool_and_single_threaded_exclude_each_other(inner):
    result = inner("def test_one(compile_pool, single_threaded_compile): pass")
    result.stdout.fnmatch_lines(["*test_one: single_threaded_compile and a compile pool exclude each other*"])
    assert result.ret != 0


def test_a_checker_whose_name_is_taken(inner):
    result = inner(
        PASSES,
        conftest="""
            from pytest_compilepool.leaks.base import LeakChecker

            class Mine(LeakChecker):
                name = "threads"
                def measure(self): return {}

            def pytest_compilepool_leak_checkers(config):
                return [Mine()]
        """,
    )
    refused(result, ["leak checker 'threads'", "taken", "processes"])


def refused(result: pytest.RunResult, words: list[str]) -> None:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    line = next((line for line in text.splitlines() if line.startswith("ERROR: ")), text)
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text


def test_a_marker_that_is_not_allowed_under_xdist(inner):
    """Its workers cannot end the run at collection: the test says it."""
    result = inner(
        """
        import pytest

        @pytest.mark.compilepool(processes=0)
        def test_one(): pass

        def test_two(): pass
        """,
        "-p",
        "xdist",
        "-n",
        "2",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*test_one: @pytest.mark.compilepool(processes=...): 0 is not a number of compile processes*"]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
