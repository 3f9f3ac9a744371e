# SPDX-License-Identifier: Apache-2.0
"""Interpreters that are forked from one process: each is a fresh one for what runs in it, and nothing of it stays."""

from __future__ import annotations

import json
import textwrap

import pytest
from small_suites import FEATURE

from pytest_compilepool import proctree
from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.records import ProcessKey

TWO = FEATURE + FEATURE.replace("jobs.add", "jobs.more") + "limit = 5\n"
HEAD = """
    import json, os, signal, sys, tempfile, threading, time
    from pathlib import Path
    from pytest_compilepool import proctree
    from pytest_compilepool.conformance.bench import check
    from pytest_compilepool.conformance.feature import feature
    from pytest_compilepool.workloads import jobs

    def tell(bench, **more):
        told = {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "folder": os.getcwd(),
                "loaded": "remembers" in sys.modules, "arguments": sys.argv, "temporary": tempfile.gettempdir(),
                "variables": sorted(os.environ), "threads": len(os.listdir("/proc/self/task")), **more}
        bench.note(json.dumps(told))
"""


def two(first: str, second: str = "tell(bench); bench.second_job()") -> str:
    bodies = {"jobs.add": first, "jobs.more": second}
    tests = [
        f'    @feature("{name}")\n    def test_{name[5:]}(bench):\n{textwrap.indent(textwrap.dedent(body), " " * 8)}\n'
        for name, body in bodies.items()
    ]
    return HEAD + "\n" + "\n".join(tests)


@pytest.fixture
def forked_suite(own_suite, pytester):
    """As `own_suite`, of two features, over a pool whose requirements have something to be imported beforehand.

    Returns the result, the verdicts by feature, and of each what its scenario told of itself; and the run's own line.
    """

    def run(*arguments, scenarios, preload='("remembers",)', features=TWO):
        pytester.makepyfile(
            preloading=f"""
            from reference_pool.requirements import ReferenceRequirements

            class Forked(ReferenceRequirements):
                preload = {preload}
            """,
            # Where temporary files go is found out once, and would be the server's.
            remembers="import tempfile; tempfile.gettempdir()",
        )
        arguments = ("--compilepool-cell=cell.json", *arguments)
        result = own_suite(
            *arguments, scenarios=scenarios, features=features, requirements="preloading:Forked"
        )
        if not (pytester.path / "cell.json").exists():
            return result, {}, {}, {}
        cell = read_cell(pytester.path / "cell.json")
        told = {name: json.loads(one.notes[0]) for name, one in cell.results.items() if one.notes}
        return result, cell.results, told, cell.run

    return run


def test_each_is_as_a_new_one_and_has_the_modules_already(forked_suite, pytester):
    plain = two("tell(bench); bench.second_job(); os.environ['LEFT'] = 'x'; sys.argv[:] = ['changed']")
    result, verdicts, forked, _ = forked_suite(scenarios=plain)
    assert result.ret == 0, verdicts
    first, second = forked["jobs.add"], forked["jobs.more"]
    assert first["pid"] != second["pid"]
    assert first["parent"] == second["parent"]
    assert first["loaded"]
    assert second["loaded"]

    _, _, new, _ = forked_suite("--compilepool-interpreter=new", scenarios=plain)
    assert new["jobs.add"]["parent"] == new["jobs.more"]["parent"] != first["parent"]
    assert not new["jobs.add"]["loaded"]
    for told in (first, second, *new.values()):
        assert told["session"] == told["pid"]
        assert told["arguments"][0] == "-c"
        assert told["arguments"][1] == told["folder"] == told["temporary"]
        assert told["variables"] == new["jobs.add"]["variables"]
        assert told["threads"] == new["jobs.add"]["threads"]
    assert len({told["folder"] for told in (first, second)}) == 2


@pytest.mark.parametrize(
    ("preload", "why"),
    [
        ('("with_a_thread",)', "after importing with_a_thread it has 2 threads"),
        ('("that_raises",)', "ValueError: not today"),
        ('("nowhere",)', "ModuleNotFoundError: No module named 'nowhere'"),
        ('("that_ends",)', "it did not come to be: EOFError"),
        ('("without_pidfd",)', "OSError: [Errno 38] not here"),
    ],
)
def test_what_cannot_be_forked_is_new_and_the_summary_says_why(forked_suite, pytester, preload, why):
    pytester.makepyfile(
        with_a_thread="import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        that_raises="raise ValueError('not today')",
        that_ends="import os; os._exit(3)",
        without_pidfd="import os\ndef pidfd_open(pid):\n    raise OSError(38, 'not here')\nos.pidfd_open = pidfd_open",
    )
    result, _, told, run = forked_suite(scenarios=two("tell(bench); bench.second_job()"), preload=preload)
    assert result.ret == 0
    assert why in run["interpreters not forked:"]
    assert f"interpreters not forked: {why}" in str(result.stdout)
    assert len(told) == 2


def test_what_hides_from_the_tree_is_ended(forked_suite):
    """A process that forked twice, in a session of its own: its environment, as the kernel has it, is the server's."""
    hidden = """
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            os._exit(0)
        pid = int(os.read(read, 20))
        row = proctree.lookup(pid)
        tell(bench, hidden=[row.key.pid, row.key.started])
    """
    looks = """
        rows = proctree.table().values()
        tell(bench, siblings=[row.pid for row in rows if row.parent == os.getppid() and row.pid != os.getpid()])
    """
    result, _, told, _ = forked_suite("--compilepool-leaks=fail", scenarios=two(hidden, looks))
    assert result.ret == 0
    assert told["jobs.more"]["siblings"] == []
    assert not proctree.alive(ProcessKey(*told["jobs.add"]["hidden"]))
    assert told["jobs.add"]["parent"] == told["jobs.more"]["parent"]


def test_one_that_stands_still_is_ended_and_the_next_is_forked(forked_suite):
    stands = "tell(bench); threading.Lock().acquire() and jobs.wait_for('/nowhere/where_it_stands', 600)"
    features = FEATURE + "limit = 2\n" + FEATURE.replace("jobs.add", "jobs.more")
    result, verdicts, told, _ = forked_suite(scenarios=two(stands), features=features)
    assert result.ret == 1
    assert verdicts["jobs.add"].status == "TIMEOUT"
    assert "in wait_for" in verdicts["jobs.add"].reason
    assert verdicts["jobs.more"].status == "PASS"
    assert told["jobs.more"]["loaded"]


@pytest.mark.parametrize("victim", ["os.getppid()", "os.getpid()"])
def test_one_that_kills_has_crashed_and_the_next_is_forked(forked_suite, victim):
    result, verdicts, told, _ = forked_suite(
        scenarios=two(f"os.kill({victim}, signal.SIGKILL); time.sleep(600)")
    )
    assert result.ret == 1
    assert verdicts["jobs.add"].status == "CRASH"
    assert "was killed by SIGKILL" in verdicts["jobs.add"].reason
    assert verdicts["jobs.more"].status == "PASS"
    assert told["jobs.more"]["loaded"]


def test_nothing_is_left_of_it(forked_suite, pytester, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("temporary")))
    result, _, told, _ = forked_suite("--compilepool-leaks=fail", scenarios=two("tell(bench)"))
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*left behind*")
    assert proctree.lookup(told["jobs.add"]["parent"]) is None
    assert list((pytester.path / "temporary").iterdir()) == []


ANOTHER = """
    def alone(bench):
        tell(bench, parent=os.getppid())
        jobs.touch(bench.file("told"), bench.notes[0])
"""


def test_another_interpreter_is_forked_from_one_that_has_done_nothing_yet(forked_suite):
    """As a new one is, but for the modules; from one that has made a pool it is not."""
    ask = """
        first = bench.other(alone)
        told = json.loads(first.appears("told"))
        status = first.ends(10, "another interpreter")
        bench.ready()
        second = json.loads(bench.other(alone).appears("told"))
        bench.note(json.dumps({"me": os.getpid(), "first": told, "second": second, "status": status}))
    """
    _, verdicts, told, _ = forked_suite(scenarios=two("tell(bench)", ask) + ANOTHER)
    assert verdicts["jobs.more"].status == "PASS", verdicts["jobs.more"].reason
    found = told["jobs.more"]
    first, second = found["first"], found["second"]
    assert found["status"] == 0
    assert (first["loaded"], second["loaded"]) == (True, False)
    assert first["parent"] == second["parent"] == found["me"]
    assert first["folder"] != second["folder"]
    for one in (first, second):
        assert one["arguments"] == ["-c", one["folder"], str(found["me"])]
        assert one["temporary"] == one["folder"]
    for same in ("threads", "session", "variables"):
        assert first[same] == second[same]


def test_bad_values(forked_suite):
    result, *_ = forked_suite(scenarios=two("pass"), preload="'colorsys'")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["*preload = 'colorsys' is not allowed; allowed: a tuple of names of modules*"]
    )
    result, *_ = forked_suite("--compilepool-interpreter=old", scenarios=two("pass"))
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--compilepool-interpreter: 'old' is not allowed; allowed: fork, new*"])
