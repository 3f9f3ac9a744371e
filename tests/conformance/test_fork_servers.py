# SPDX-License-Identifier: Apache-2.0
"""The servers that interpreters are forked from: one that dies, one that cannot fork, one origin of many, strangers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.conformance.forks import ForkServer, ForkServers, Origin
from pytest_compilepool.conformance.link import Link
from pytest_compilepool.conformance.order import ANSWER, STACKS, Order, write_order
from pytest_compilepool.fresh.ending import end_all

TESTS = Path(__file__).parents[1]


REFERENCE = "reference_pool.requirements:ReferenceRequirements"


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


def test_its_environment_is_that_of_who_asks_and_not_of_what_was_imported(importable, monkeypatch):
    """Importing torch writes variables, too; and those of whoever started the server may be gone since."""
    (importable / "writes.py").write_text("import os\nos.environ['BY_THE_IMPORT'] = '1'\n")
    (importable / "reads.py").write_text(
        "import os\ndef variables(bench):\n"
        "    bench.note([os.environ.get(name) for name in ('BY_THE_IMPORT', 'OF_BEFORE', 'OF_NOW')])\n"
    )
    monkeypatch.setenv("OF_BEFORE", "1")
    server = ForkServer(["writes"])
    try:
        assert server.usable(), server.refusal
        monkeypatch.delenv("OF_BEFORE")
        monkeypatch.setenv("OF_NOW", "1")
        write_order(Order("jobs.add", "reads", "variables", REFERENCE, sys.path, 20.0), importable)
        assert server.run(importable, 20.0) == 0
        assert json.loads((importable / ANSWER).read_text())["notes"] == [[None, None, "1"]]
    finally:
        server.close()


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
