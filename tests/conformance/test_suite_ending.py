# SPDX-License-Identifier: Apache-2.0
"""A run that is ended before its end: what it had started ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_suites import FEATURE

from pytest_compilepool import proctree
from pytest_compilepool.fresh.interrupt import ENDING

TESTS = Path(__file__).parents[1]
REFERENCE = "reference_pool.requirements:ReferenceRequirements"
FORKED = "small_suites:Forked"


@contextlib.contextmanager
def no_signal_ignored():
    """What is started in the block ignores no signal, as behind a terminal; `command &` in a script ignores SIGINT."""
    ignored = [name for name in ENDING if signal.getsignal(name) is signal.SIG_IGN]
    for name in ignored:
        signal.signal(name, signal.SIG_DFL)
    try:
        yield
    finally:
        for name in ignored:
            signal.signal(name, signal.SIG_IGN)


def start(folder, module, *arguments):
    """A run of a suite whose temporary folders are in `folder`. module: for `python -m`."""
    with open(folder / "said", "wb") as said, no_signal_ignored():
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
            | {"TMPDIR": str(folder), "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS / 'conformance'}"},
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def below(process):
    return [row for row in proctree.descendants(process.pid) if not row.dead]


def wait_for_features(process, folder, deep=3):
    """Until a pool of one of its features has workers. Returns what lives below the run.

    deep: how far below it: the scenario, its sidecar, and workers.
    """
    deadline = time.monotonic() + 60
    while True:
        rows = below(process)
        depth = {process.pid: 0}
        for row in sorted(rows, key=lambda one: one.key.started):
            depth[row.pid] = depth.get(row.parent, 0) + 1
        if max(depth.values()) >= deep and list(folder.glob("compilepool-*/order.json")):
            return [row.key for row in rows]
        assert process.poll() is None, "the run ended before it had tried anything"
        assert time.monotonic() < deadline, f"no feature was at work after 60 s: {rows}"
        time.sleep(0.01)


RUN = ("pytest_compilepool.cli", "run", "--group=quiesce", f"--requirements={REFERENCE}")
FORKS = ("pytest_compilepool.cli", "run", "--group=quiesce", f"--requirements={FORKED}")
TORCH = ("pytest_compilepool.cli", "run", "--group=quiesce")
MUTANTS = (
    "pytest_compilepool.cli",
    "mutants",
    str(TESTS / "mutants"),
    "--group=quiesce",
    "--pool=reference",
    "-n2",
)


@pytest.mark.parametrize(
    ("name", "command", "status"),
    [
        ("SIGTERM", (*RUN, "-n0"), 2),
        pytest.param("SIGTERM", (*RUN, "-n2"), 2, marks=pytest.mark.thorough),
        pytest.param("SIGHUP", (*RUN, "-n2"), 2, marks=pytest.mark.thorough),
        ("SIGINT", (*RUN, "-n2"), 2),
        ("SIGTERM", (*FORKS, "-n0"), 2),
        ("SIGINT", (*FORKS, "-n2"), 2),
        ("SIGTERM", MUTANTS, 130),
        ("SIGINT", MUTANTS, 130),
    ],
    ids=[
        "terminated-alone",
        "terminated",
        "hung-up",
        "interrupted",
        "forked-terminated-alone",
        "forked-interrupted",
        "mutants-terminated",
        "mutants-interrupted",
    ],
)
@pytest.mark.parametrize(
    "whole_group", [False, pytest.param(True, marks=pytest.mark.thorough)], ids=["", "group"]
)
def test_a_run_that_is_ended_from_outside_leaves_nothing(tmp_path, name, command, status, whole_group):
    process = start(tmp_path, *command)
    try:
        keys = wait_for_features(process, tmp_path)
        for _ in range(3):  # as one does who finds that the first took too long
            (os.killpg if whole_group else os.kill)(process.pid, signal.Signals[name])
        assert process.wait(25) == status
    finally:
        process.kill()
        process.wait()
    assert proctree.wait_gone(keys, 3) == []
    assert left(tmp_path) == []
    assert "Traceback" not in (tmp_path / "said").read_text()


def left(folder):
    """What a run has left there, besides its words; xdist has pytest's own folder made, whatever it runs."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(("pytest-of-", "said"))]


def test_mutants_that_are_interrupted_do_not_wait_for_their_features(tmp_path):
    process = start(tmp_path, *MUTANTS)
    wait_for_features(process, tmp_path)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(25) == 130
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("arguments", [(), ("--list",)])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_run_that_is_ended_while_the_pool_is_asked(tmp_path, name, arguments):
    process = start(tmp_path, *RUN, *arguments)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("compilepool-*/log.txt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.Signals[name])
    assert process.wait(25) == 2
    assert left(tmp_path) == []
    assert (tmp_path / "said").read_text() == "compilepool run: interrupted\n"


LASTS = """
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs

@feature("jobs.add")
def test_add(bench):
    bench.ready()
    bench.second_job()
    jobs.wait_for(bench.file("never"), 50)
"""


@pytest.mark.parametrize(("requirements", "deep"), [(REFERENCE, 3), (FORKED, 5)])
def test_interpreters_of_a_run_that_is_killed_end_with_it(tmp_path, requirements, deep):
    (tmp_path / "features.toml").write_text(FEATURE)
    (tmp_path / "test_jobs.py").write_text(LASTS)
    requirements = f"--compilepool-requirements={requirements}"
    process = start(tmp_path, "pytest", "-p", "compilepool", requirements, "-p", "no:cacheprovider")
    keys = wait_for_features(process, tmp_path, deep)
    process.kill()
    process.wait()
    assert proctree.wait_gone(keys, 10) == []


LEAVES = """
import subprocess
from pathlib import Path
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs

@feature("jobs.add")
def test_add(bench):
    # As a worker of torch does, it does not end with who has started it.
    left = subprocess.Popen(["sleep", "300"], start_new_session=True)
    Path(bench.file("order.json")).parent.parent.joinpath("left").write_text(str(left.pid))
    jobs.wait_for(bench.file("never"), 50)
"""


@pytest.mark.parametrize("requirements", [REFERENCE, FORKED])
@pytest.mark.parametrize("at_once", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_what_outlives_its_scenario_ends_with_a_run_that_is_killed(tmp_path, requirements, at_once):
    (tmp_path / "features.toml").write_text(FEATURE)
    (tmp_path / "test_jobs.py").write_text(LEAVES)
    requirements = f"--compilepool-requirements={requirements}"
    process = start(tmp_path, "pytest", "-p", "compilepool", requirements, "-p", "no:cacheprovider", *at_once)
    deadline = time.monotonic() + 60
    try:
        # There is a moment in which it is there and empty.
        while not ((tmp_path / "left").exists() and (tmp_path / "left").read_text()):
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline, "the scenario was not at work after 60 s"
            time.sleep(0.01)
        pid = int((tmp_path / "left").read_text())
        key = proctree.table()[pid].key
    finally:
        process.kill()
        process.wait()
    assert proctree.wait_gone([key], 10) == []
    wait_until_removed(tmp_path)


def wait_until_removed(folder):
    """Until no temporary folder of the run is left there: a guard removes them after the processes."""
    deadline = time.monotonic() + 10
    while found := list(folder.glob("compilepool-*")):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_run_whose_processes_share_one_origin_leaves_nothing(tmp_path, pool_here, name):
    process = start(tmp_path, *TORCH, "-n2")
    # Beside the run's own processes: where the interpreters come from, a server, a scenario, its sidecar and workers.
    keys = wait_for_features(process, tmp_path, 5)
    process.send_signal(signal.Signals[name])
    process.wait(25)
    assert proctree.wait_gone(keys, 10) == []
    wait_until_removed(tmp_path)
