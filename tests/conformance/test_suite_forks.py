# SPDX-License-Identifier: Apache-2.0
"""Interpreters that are forked from one process: each is a fresh one for what runs in it, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_suites import FEATURE

from pytest_compilepool import proctree
from pytest_compilepool.conformance.forks import ForkServer, ForkServers, Origin
from pytest_compilepool.conformance.link import Link
from pytest_compilepool.conformance.order import ANSWER, STACKS, Order, write_order
from pytest_compilepool.fresh.ending import end_all
from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.records import ProcessKey

TESTS = Path(__file__).parents[1]
REFERENCE = "reference_pool.requirements:ReferenceRequirements"
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


def test_several_have_one_origin_and_another_list_of_modules_has_another():
    origin = Origin(["colorsys"])
    several = [ForkServers(origin.address) for _ in range(2)]
    try:
        servers = [one.having(["colorsys"]) for one in several]
        other = several[0].having(["colorsys", "json"])
        assert all(server.usable() for server in (*servers, other))
        assert [proctree.lookup(server.pid).parent for server in servers] == [origin.process.pid] * 2
        assert proctree.lookup(other.pid).parent != origin.process.pid
        assert several[0].having(["colorsys"]) is servers[0]
        rows = proctree.table()
        keys = [rows[pid].key for pid in (origin.process.pid, other.pid, *(one.pid for one in servers))]
    finally:
        for one in several:
            one.close()
        origin.close()
    assert proctree.wait_gone(keys, 3) == []


def test_who_is_killed_takes_his_interpreter_with_him(tmp_path):
    """And nobody else's: another process of the run may live on, and the origin with it."""
    (tmp_path / "lasts.py").write_text("import time\ndef for_ever(bench):\n    time.sleep(600)\n")
    write_order(
        Order("jobs.add", "lasts", "for_ever", REFERENCE, [str(tmp_path), *sys.path], 600.0), tmp_path
    )
    origin = Origin(["colorsys"])
    client = (
        "import sys, pathlib; from pytest_compilepool.conformance.forks import *; "
        "server = ForkServer(['colorsys'], Address(('colorsys',), sys.argv[1])); server.usable(); "
        "server.run(pathlib.Path(sys.argv[2]), 600.0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", client, origin.address.name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(tmp_path)])},
    )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / STACKS).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # The server and the interpreter.
        keys = [row.key for row in proctree.descendants(origin.process.pid)]
        assert len(keys) == 2
        process.kill()
        assert proctree.wait_gone(keys, 5) == []
        assert origin.process.poll() is None
    finally:
        process.kill()
        process.wait()
        origin.close()


def lives(server, tmp_path, name="told"):
    """Have an interpreter forked (or started, where none can be) that says who its parent is."""
    (tmp_path / "tells.py").write_text("import os\ndef parent(bench):\n    bench.note(os.getppid())\n")
    folder = tmp_path / name
    folder.mkdir()
    write_order(Order("jobs.add", "tells", "parent", REFERENCE, sys.path, 20.0), folder)
    assert server.run(folder, 20.0) == 0
    return json.loads((folder / ANSWER).read_text())["notes"][0]


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Interpreters that are forked from here find this folder and the reference pool."""
    for folder in (TESTS, tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    return tmp_path


@pytest.fixture
def server(importable):
    found = ForkServer(["colorsys"])
    yield found
    found.close()


def test_one_that_has_died_between_two_features_gives_way_to_another(server, importable):
    assert server.usable()
    first = server.pid
    assert lives(server, importable, "1") == first
    os.kill(first, signal.SIGKILL)
    assert proctree.wait_gone([proctree.lookup(first).key], 5) == []
    second = lives(server, importable, "2")
    assert second == server.pid != first


def test_where_nothing_can_be_forked_each_is_new(importable):
    (importable / "no_more.py").write_text(
        "import os\nreal, made = os.fork, []\n"
        "def fork():\n"
        "    made.append(1)\n"
        "    if len(made) > 1:\n"
        "        raise BlockingIOError(11, 'no more')\n"
        "    return real()\n"
        "os.fork = fork\n"
    )
    server = ForkServer(["no_more"])
    try:
        assert server.usable()
        assert lives(server, importable) == os.getpid()
    finally:
        server.close()


def test_nobody_is_ended_for_an_interpreter_that_never_was():
    """0 is the parent of the first process, and so of all."""
    with pytest.raises(ValueError, match="pid 0: everything is below that"):
        end_all(SimpleNamespace(pid=0, poll=lambda: None, wait=lambda timeout: 0), "tag")


def test_one_client_that_cannot_be_served_is_no_harm_to_the_others(importable):
    (importable / "second_fails.py").write_text(
        "import os\nreal, made, me = os.fork, [], os.getpid()\n"
        "def fork():\n"
        "    made.append(1)\n"
        "    if os.getpid() == me and len(made) == 2:\n"
        "        raise BlockingIOError(11, 'not now')\n"
        "    return real()\n"
        "os.fork = fork\n"
    )
    origin = Origin(["second_fails"])
    one, two, three = (ForkServer(["second_fails"], origin.address) for _ in range(3))
    try:
        assert [server.usable() for server in (one, two, three)] == [True, False, True]
        assert "EOFError" in two.refusal
        assert lives(one, importable, "1") == one.pid
        assert lives(three, importable, "3") == three.pid
    finally:
        for server in (one, two, three):
            server.close()
        origin.close()


def test_what_whoever_starts_it_ignores_does_not_matter(server, importable):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert server.usable()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert lives(server, importable, "1") == lives(server, importable, "2") == server.pid


def test_the_folder_that_it_is_started_in_does_not_matter(server, importable, monkeypatch):
    (importable / "elsewhere").mkdir()
    (importable / "elsewhere" / "json.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(importable / "elsewhere")
    assert server.usable(), server.refusal


def test_more_clients_than_may_wait_at_the_door(importable):
    (importable / "slow.py").write_text("import time; time.sleep(1)")
    origin = Origin(["slow"])
    links = []
    try:
        for _ in range(80):
            began = time.monotonic()
            links.append(Link.to(origin.address.name))
            assert time.monotonic() - began < 5
    finally:
        for link in links:
            link.close()
        origin.close()


def test_an_origin_that_is_gone_is_done_without():
    origin = Origin(["colorsys"])
    origin.close()
    server = ForkServers(origin.address).having(["colorsys"])
    assert not server.usable()
    assert "ConnectionRefusedError" in server.refusal


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_nobody_else_can_have_anything_forked():
    origin = Origin(["colorsys"])
    read, write = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            link = socket.socket(socket.AF_UNIX)
            link.connect(f"\0{origin.address.name}")
            os.write(write, b"refused" if link.recv(100) == b"" else b"served")
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 100) == b"refused"
    finally:
        origin.close()
        os.close(read)
        os.close(write)


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
