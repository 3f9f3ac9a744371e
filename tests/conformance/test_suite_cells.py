# SPDX-License-Identifier: Apache-2.0
"""The cell that a run leaves: what was not run and why, parts, attempts, what must be there, and what was counted."""

from __future__ import annotations

import pytest
from small_suites import FEATURE

from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.matrix.merge import ELSEWHERE, merge
from pytest_compilepool.suites.requirements import Requirements

CELL = "--compilepool-cell=cell.json"
HEAD = """
    import os, sys
    from pathlib import Path
    from pytest_compilepool.conformance.bench import check
    from pytest_compilepool.conformance.feature import feature
"""
NAMES = ("add", "more", "other", "stress")


def features(*names, needs=""):
    return "".join(
        FEATURE.replace("jobs.add", f"jobs.{name}").replace(
            '"smoke"', f'"{"stress" if name == "stress" else "smoke"}"'
        )
        + needs
        for name in names
    )


def scenarios(*names, body="pass"):
    tests = (f'    @feature("jobs.{name}")\n    def test_{name}(bench):\n        {body}\n' for name in names)
    return HEAD + "\n".join(tests)


@pytest.fixture
def cell_of(own_suite, pytester):
    """Run these features with these arguments. Returns the outcome and the cell, None where there is none."""

    def run(*arguments, names=NAMES, needs="", body="pass"):
        (pytester.path / "cell.json").unlink(missing_ok=True)
        result = own_suite(
            CELL, *arguments, features=features(*names, needs=needs), scenarios=scenarios(*names, body=body)
        )
        file = pytester.path / "cell.json"
        return result, read_cell(file) if file.exists() else None

    return run


def test_what_was_not_run_says_why(cell_of):
    _, cell = cell_of("-k", "not other")
    assert cell.totals == {"PASS": 2, "NOTRUN": 2}
    assert cell.not_run == {
        "jobs.other": "deselected, or the run was cut short",
        "jobs.stress": "runs in the mode stress",
    }
    assert cell.complete
    assert cell.mode == "standard"


def test_the_environment_is_told(cell_of, monkeypatch):
    for name, value in {
        "TRITON_PRINT_AUTOTUNING": "1",
        "TORCHINDUCTOR_CACHE_DIR": "/a/place",
        "HF_TOKEN": "secret",
        "TORCH_SECRET_KEY": "secret",
        "GITHUB_RUN_ID": "7",
        "GITHUB_REPOSITORY": "me/mine",
    }.items():
        monkeypatch.setenv(name, value)
    _, cell = cell_of()
    assert cell.run.keys() >= {
        "python",
        "pytest",
        "plugins",
        "os",
        "kernel",
        "arch",
        "cpus",
        "memory_limit",
        "host",
        "started",
    }
    assert cell.run["pool"] == "the reference pool"
    assert cell.run["environment"]["TRITON_PRINT_AUTOTUNING"] == "1"
    assert "TORCHINDUCTOR_CACHE_DIR" not in cell.run["environment"]
    assert "secret" not in str(cell.run)
    assert cell.run["ci"] == "https://github.com/me/mine/actions/runs/7"
    assert "facts_missing" not in cell.run


def test_two_halves_of_a_run_merge_into_the_whole(cell_of):
    """But for times."""
    _, whole = cell_of()
    halves = [cell_of(f"--compilepool-shard={number}/2")[1] for number in (1, 2)]
    assert [set(half.results) & {"jobs.add", "jobs.more", "jobs.other"} for half in halves] == [
        {"jobs.add", "jobs.other"},
        {"jobs.more"},
    ]
    assert halves[0].not_run == {"jobs.more": ELSEWHERE, "jobs.stress": "runs in the mode stress"}
    made = merge(halves)
    for cell in (whole, made):
        cell.run["started"] = cell.source = ""
        for result in cell.results.values():
            result.duration = 0.0
    assert made.to_text() == whole.to_text()


KILLED = """
    def test_is_killed_by_the_clock_of_a_ci():
        os.kill(os.getpid(), 9)
"""


def test_a_run_that_is_killed_leaves_what_it_knew(own_suite, pytester):
    result = own_suite(CELL, features=features(*NAMES), scenarios=scenarios("add", "more") + KILLED)
    assert result.ret == -9
    cell = read_cell(pytester.path / "cell.json")
    assert cell.totals == {"PASS": 2, "NOTRUN": 2}
    assert not cell.complete
    assert cell.run["pool"] == "the reference pool"
    assert cell.run["host"]
    assert [path.name for path in pytester.path.glob("cell*")] == ["cell.json"]


def test_what_another_run_found_is_not_what_this_one_did(own_suite, pytester):
    """It is refused: gpu is required."""
    file = pytester.path / "cell.json"
    file.write_text("of yesterday")
    assert own_suite(CELL, "--compilepool-require=no_such_thing").ret == 4
    assert not file.exists()


GONE = """
    def test_the_place_goes_away():
        import shutil
        shutil.rmtree("there")
"""


@pytest.mark.parametrize("at_once", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "xdist"])
def test_where_it_cannot_be_written_any_more_what_was_found_is_still_told(own_suite, pytester, at_once):
    (pytester.path / "there").mkdir()
    result = own_suite(
        "--compilepool-cell=there/cell.json",
        *at_once,
        features=features("add", "more"),
        scenarios=scenarios("add") + GONE + scenarios("more").replace(HEAD, ""),
    )
    assert result.ret == 4
    result.stdout.fnmatch_lines(
        [
            "*2 of 2 promises are kept*",
            "*--compilepool-cell: 'there/cell.json' cannot be written: No such file or directory*",
        ]
    )


def test_nothing_is_asked_where_tests_are_only_collected(own_suite, pytester):
    assert own_suite(CELL, "--collect-only").ret == 0
    assert not (pytester.path / "cell.json").exists()


@pytest.mark.parametrize("text", ["3/2", "half", "0/1"])
def test_a_shard_that_is_none(cell_of, text):
    result, cell = cell_of(f"--compilepool-shard={text}")
    assert result.ret == 4
    assert cell is None
    result.stderr.fnmatch_lines([f"*--compilepool-shard*{text}*K/N*"])


# The first attempt fails, all others do not.
COUNTING = (
    "place = Path(os.environ['TRIED']); number = len(place.read_text()) if place.exists() else 0; "
    "place.write_text('x' * (number + 1)); check({}, f'attempt {{number}}')"
)


@pytest.mark.parametrize(
    ("condition", "asked", "status", "attempts"),
    [
        ("number >= 1", 3, "FLAKY", ["FAIL", "PASS"]),
        ("False", 3, "FAIL", ["FAIL"] * 3),
        ("number >= 1", 1, "FAIL", []),
        ("True", 3, "PASS", []),
    ],
)
def test_attempts(cell_of, monkeypatch, tmp_path, condition, asked, status, attempts):
    monkeypatch.setenv("TRIED", str(tmp_path / "tried"))
    result, cell = cell_of(f"--compilepool-attempts={asked}", names=("add",), body=COUNTING.format(condition))
    found = cell.results["jobs.add"]
    assert (found.status, found.attempts) == (status, attempts)
    # One that is kept now and then is not kept: nobody knew of it.
    assert result.ret == int(status != "PASS")


@pytest.mark.parametrize("text", ["0", "10", "two", "1.0", "٣"])
def test_attempts_that_cannot_be(cell_of, text):
    result, _ = cell_of(f"--compilepool-attempts={text}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--compilepool-attempts*a whole number from 1 to 9*"])


def test_what_a_scenario_counts(cell_of):
    _, cell = cell_of(names=("add",), body="bench.count({'cache_hit': 3, 'share': 0.5})")
    assert cell.results["jobs.add"].counters == {"cache_hit": 3, "share": 0.5}


@pytest.mark.parametrize(("need", "status"), [("gpu", "SKIP"), ("fork_workers", "UNSUPPORTED")])
def test_what_the_machine_lacks_is_no_evidence_and_what_the_pool_lacks_is(cell_of, monkeypatch, need, status):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, cell = cell_of(names=("add",), needs=f'needs = ["{need}"]\n')
    found = cell.results["jobs.add"]
    assert (found.status, found.requirement, found.got) == (status, need, "")


def test_a_torch_that_cannot_compile_for_an_absent_gpu_says_nothing_of_its_pool():
    """With a GPU the same pool compiles the same kernels: what is asked of the machine is the property itself."""
    assert Requirements.of_the_machine["kernels"] == ("kernels",)


def test_what_is_required_and_not_there_is_an_error(cell_of, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    needs = 'needs = ["gpu"]\n'
    result, cell = cell_of("--compilepool-require=gpu", names=("add",), needs=needs)
    assert result.ret == 4
    assert cell is None
    result.stderr.fnmatch_lines(
        ["*--compilepool-require: gpu is required, and is not here: A GPU that torch can use*"]
    )
    result, _ = cell_of("--compilepool-require=gpus", names=("add",), needs=needs)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--compilepool-require: 'gpus' is not allowed; allowed: *gpu*"])


@pytest.mark.timeout(120)
def test_a_test_whose_process_dies_is_an_error_in_the_cell(cell_of, monkeypatch, tmp_path):
    pytest.importorskip("xdist")
    # What features share lies in a folder of each worker's own, and nobody removes that of one that died.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # Of pytest's own process: the scenario is not what dies.
    _, cell = cell_of("-p", "xdist", "-n", "1", "-p", "dying", names=("add", "more"))
    assert cell.results["jobs.more"].status == "ERROR"
    assert cell.results["jobs.add"].status == "PASS"
    assert not cell.complete


@pytest.fixture(autouse=True)
def dying(pytester):
    """A plugin that ends its process at one test."""
    pytester.makepyfile(
        dying="""
        import os

        def pytest_runtest_call(item):
            if item.name == "test_more":
                os._exit(3)
        """
    )
