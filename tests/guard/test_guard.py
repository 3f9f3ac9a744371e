# SPDX-License-Identifier: Apache-2.0
"""Whatever ends a session, what carries its marks ends after it, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from unittest import mock

import psutil
import pytest
from played import is_alive, wait_until

from pytest_compilepool import proctree, sessionrecord
from pytest_compilepool.guard import ending, launch, watch
from pytest_compilepool.guard.warden import Warden
from pytest_compilepool.leaks import reaper
from pytest_compilepool.leaks.processes import adopt_orphans, is_adopting, stop_adopting

OURS = {"tagged", "deaf", "forked", "worker"}
OTHERS = {"stranger", "namesake"}


@pytest.fixture(autouse=True)
def no_pools_of_other_tests(monkeypatch):
    """What this process keeps for the tests of other files would keep the guards of these alive."""
    monkeypatch.setattr(ending, "pools_of", lambda parent: [])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP])
def test_what_is_left_is_ended_and_nothing_else(play, state, how):
    session = play(*OURS, *OTHERS)
    assert session.alive() == OURS | OTHERS
    os.kill(session.process.pid, how)
    session.process.wait(10)
    assert wait_until(lambda: session.alive() == OTHERS, 3.0), session.alive()
    assert wait_until(lambda: not proctree.alive(session.guard), 3.0)
    (path,) = sessionrecord.records(state)
    account = sessionrecord.read_account(path)
    assert (account.died["test"], account.died["attempt"]) == ("test_x.py::test_it", 2)
    assert len(account.died["ended"]) >= len(OURS)
    assert account.died["left"] == []


def test_a_session_that_ends_as_it_should_has_nothing_ended(play, state):
    session = play("tagged", "forked", "stranger")
    session.say("end")
    assert wait_until(lambda: not any(state.iterdir()))
    assert wait_until(lambda: not proctree.alive(session.guard)), "its record is gone before it is"
    session.kill()
    assert session.alive() == {"tagged", "forked", "stranger"}


def test_a_pool_that_outlives_the_session_is_ended_with_the_process(play, state):
    session = play("worker", "stranger")
    session.say("end")
    (path,) = sessionrecord.records(state)
    assert wait_until(lambda: sessionrecord.read_account(path).finished)
    assert session.alive() == {"worker", "stranger"}
    session.kill()
    assert wait_until(lambda: session.alive() == {"stranger"}, 3.0)
    assert wait_until(lambda: sessionrecord.records(state) == [])


def test_signals_of_a_terminal_do_not_end_the_guard(play):
    session = play("tagged")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(session.guard.pid, number)
    session.kill()
    assert wait_until(lambda: session.alive() == set(), 3.0)


def test_a_worker_ends_with_its_controller(play, state, tmp_path):
    """The parent of a session that is a worker of xdist is killed; the session itself hears nothing of it."""
    driver = tmp_path / "controller.py"
    driver.write_text(
        "import json, subprocess, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from played import SESSION\n"
        "told = json.dumps({'children': ['tagged'], 'worker': 'gw0'})\n"
        "worker = subprocess.Popen([sys.executable, '-c', SESSION, told], stdin=subprocess.PIPE)\n"
        "worker.wait()\n"
    )
    controller = subprocess.Popen([sys.executable, str(driver)], stdout=subprocess.PIPE, text=True)
    told = json.loads(controller.stdout.readline())
    assert is_alive(told["pid"])
    controller.kill()
    controller.wait(10)
    controller.stdout.close()
    assert wait_until(lambda: not is_alive(told["pid"]), 3.0)
    assert wait_until(lambda: not is_alive(told["pids"]["tagged"]), 3.0)
    # Orphans come to whoever runs the tests, where that adopts them.
    reaper.collect([told["pid"], told["pids"]["tagged"]])


def test_it_is_nobodys_child_and_takes_no_time(state):
    children = psutil.Process().children(recursive=True)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    warden = Warden(Path("/the/root"))
    try:
        assert warden.trouble == ""
        (pid,) = warden.pids
        assert psutil.Process().children(recursive=True) == children
        assert proctree.lookup(pid).parent != os.getpid()
        assert wait_until(lambda: proctree.lookup(pid).state == "S")
        before = proctree.cpu_seconds(pid)
        for _ in range(20):
            os.stat("/")
        assert proctree.cpu_seconds(pid) - before <= 0.01
        assert wait_until(lambda: os.readlink(f"/proc/{pid}/fd/2") == "/dev/null")
        links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert links.pop("0") == links.pop("1") == links.pop("2") == "/dev/null"
        # Nothing of what the session has open, or a reader of its output would wait for the guard.
        assert set(links.values()) == {"anon_inode:[pidfd]"}
    finally:
        warden.close()
        os.close(reading)
        os.close(writing)
    assert not is_alive(pid)
    assert not any(state.iterdir())


@pytest.mark.parametrize("place", ["/dev/null/x", "here", "/proc/nothing"])
def test_without_a_place_for_a_record_there_is_a_guard_and_one_sentence(play, monkeypatch, place):
    monkeypatch.setenv("COMPILEPOOL_STATE", place)
    warden = Warden(Path("/the/root"))
    assert warden.trouble.startswith("no record of this session, so `compilepool reap` ")
    assert place in warden.trouble
    assert len(warden.pids) == 1
    warden.close()


@pytest.mark.parametrize("harm", ["removed", "open to all", "emptied"])
def test_the_guard_needs_no_record(play, state, harm):
    session = play("tagged", "forked", "stranger")
    (path,) = sessionrecord.records(state)
    if harm == "removed":
        shutil.rmtree(state)
    elif harm == "open to all":
        path.chmod(0o666)
    else:
        path.write_text("")
    session.kill()
    assert wait_until(lambda: session.alive() == {"stranger"}, 3.0)


def test_what_grows_while_it_is_ended_is_ended_too(play):
    session = play("hydra")
    session.kill()
    assert wait_until(lambda: not proctree.alive(session.guard), 10.0)
    grown = [
        pid
        for pid in proctree.table()
        if "grown" in proctree.command(pid) and proctree.environment_value(pid, proctree.TAG) == session.tag
    ]
    assert grown == []


def test_it_has_a_session_and_an_environment_of_its_own(state, monkeypatch):
    monkeypatch.setenv(proctree.TAG, "an outer session's")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    warden = Warden(Path("/the/root"))
    try:
        (pid,) = warden.pids
        assert wait_until(lambda: os.getsid(pid) == pid)
        blob = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PYTHON" not in blob
        assert proctree.TAG.encode() not in blob
        assert wait_until(lambda: os.readlink(f"/proc/{pid}/cwd") == "/")
        (guarded,) = sessionrecord.records(state)
        assert guarded.exists()
    finally:
        warden.close()


def test_a_session_that_adopts_does_not_adopt_it(state):
    before = adopt_orphans()
    try:
        warden = Warden(Path("/the/root"))
        (pid,) = warden.pids
        assert proctree.lookup(pid).parent != os.getpid()
        assert is_adopting()
        warden.close()
    finally:
        stop_adopting(before)


def test_only_pools_are_ended_after_a_session_that_ended_as_it_should(play, state):
    session = play("tagged", "forked", "worker")
    session.say("end")
    (path,) = sessionrecord.records(state)
    assert wait_until(lambda: sessionrecord.read_account(path).finished)
    session.kill()
    assert wait_until(lambda: session.alive() == {"tagged", "forked"}, 3.0)
    assert wait_until(lambda: not proctree.alive(session.guard))
    assert session.alive() == {"tagged", "forked"}


def test_what_is_older_than_the_session_is_not_its_own(play, state):
    session = play("tagged", "forked")
    (path,) = sessionrecord.records(state)
    owner = sessionrecord.read_account(path).owner
    session.kill(with_guard=True)
    assert len(ending.left_by(owner)) == 2
    younger = sessionrecord.Owner(**{**vars(owner), "started": owner.started + 1000.0})
    assert ending.left_by(younger) == []


def test_who_looks_is_spared(play, state):
    """`compilepool reap`, started by a test of a session that has gone: it has the tag itself, and so has its shell."""
    session = play("tagged")
    (path,) = sessionrecord.records(state)
    session.kill(with_guard=True)
    code = (
        "import pathlib, sys; from pytest_compilepool import sessionrecord; from pytest_compilepool.guard import ending\n"
        "owner = sessionrecord.read_account(pathlib.Path(sys.argv[1])).owner\n"
        "print([row.pid for row in ending.left_by(owner)])"
    )
    shell = ["/bin/sh", "-c", '"$0" -c "$1" "$2"; true', sys.executable, code, str(path)]
    environment = {**os.environ, proctree.TAG: session.tag}
    said = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(said.stdout) == [session.pids["tagged"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start a process as somebody else")
def test_a_process_of_somebody_else_is_left_alone(play, state):
    session = play("tagged")
    (path,) = sessionrecord.records(state)
    owner = sessionrecord.read_account(path).owner
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {proctree.TAG: session.tag}
    other = subprocess.Popen(
        ["/bin/sh", "-c", "echo up; read line"], user=65534, group=65534, env=environment, cwd="/", **pipes
    )
    try:
        assert other.stdout.readline() == b"up\n"
        session.kill(with_guard=True)
        assert [row.pid for row in ending.left_by(owner)] == [session.pids["tagged"]]
    finally:
        other.kill()
        other.wait(10)
        other.stdin.close()
        other.stdout.close()


def test_of_another_machine_or_container_nothing_is_known(play, state):
    session = play("tagged", folders=["PREFIX-abc_1234"])
    (path,) = sessionrecord.records(state)
    owner = sessionrecord.read_account(path).owner
    session.kill(with_guard=True)
    assert owner.is_gone
    assert ending.folders_of(owner)
    for changed in ({"namespace": "pid:[1]"}, {"boot": "another", "host": "elsewhere"}):
        other = sessionrecord.Owner(**{**vars(owner), **changed})
        assert other.is_foreign
        assert not other.is_gone
        assert not other.is_alive
        assert ending.left_by(other) == ending.folders_of(other) == []
    # The same machine, started anew: it is certain that it has gone.
    assert sessionrecord.Owner(**{**vars(owner), "boot": "another"}).is_gone


def test_folders_of_whoever_has_the_pid_now_stay(play, state):
    session = play("tagged", folders=["PREFIX-abc_1234"])
    (path,) = sessionrecord.records(state)
    owner = sessionrecord.read_account(path).owner
    older = sessionrecord.Owner(**{**vars(owner), "started": owner.started - 500, "at": owner.at - 500})
    assert ending.folders_of(older) == []
    session.kill(with_guard=True)
    assert len(ending.folders_of(older)) == 1
    later = sessionrecord.Owner(**{**vars(owner), "at": owner.at + 500})
    assert ending.folders_of(later) == []


def test_a_process_is_named_by_its_start_too():
    assert watch.is_there(os.getpid(), watch.start_of(os.getpid()))
    assert not watch.is_there(os.getpid(), "1")
    assert watch.wait_for([(os.getpid(), "1")], 30.0)
    assert not watch.wait_for([(os.getpid(), watch.start_of(os.getpid()))], 0.05)


@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python", "/dev/null", "", None, 5])
def test_where_no_interpreter_can_be_started(state, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    warden = Warden(Path("/the/root"))
    assert warden.trouble.startswith("no guard for this session: ")
    assert warden.pids == warden.fds == set()
    assert sessionrecord.records(state) == []
    warden.close()


@pytest.mark.parametrize(
    "broken", ["subprocess.run", "subprocess.Popen", "os.memfd_create", "tempfile.gettempdir"]
)
def test_what_a_test_has_put_in_the_place_of_something_ends_nobody(state, broken):
    """Its answer is anything: pid 1, say."""
    with mock.patch(broken):
        warden = Warden(Path("/the/root"))
    for pid in warden.pids:
        assert str(launch.PROGRAM) in proctree.command(pid)
    warden.close()
    assert is_alive(1)
    with mock.patch(broken, side_effect=OSError("as it was to")):
        Warden(Path("/the/root")).close()


def test_an_answer_that_is_somebody_elses_pid_is_not_believed(state, monkeypatch):
    monkeypatch.setattr(launch, "_spawned", lambda line: b"1\n")
    warden = Warden(Path("/the/root"))
    assert "has not started it" in warden.trouble
    assert warden.pids == set()


def test_a_record_of_another_start_of_the_machine_names_nobody(play, state):
    session = play("tagged")
    (path,) = sessionrecord.records(state)
    owner = sessionrecord.read_account(path).owner
    session.kill(with_guard=True)
    assert {row.pid for row in ending.left_by(owner)} == {session.pids["tagged"]}
    other = sessionrecord.Owner(**{**vars(owner), "boot": "another"})
    assert ending.left_by(other) == []


def test_who_has_the_pid_now_keeps_his_own(play, state):
    """A pid is used again: workers that are younger than its owner of today are that one's."""
    session = play("worker")
    (path,) = sessionrecord.records(state)
    owner = sessionrecord.read_account(path).owner
    older = sessionrecord.Owner(**{**vars(owner), "started": owner.started - 10.0, "tag": "", "mark": ""})
    assert ending.left_by(older) == []
    session.kill(with_guard=True)
    assert {row.pid for row in ending.left_by(older)} == {session.pids["worker"]}


def test_folders_are_removed_and_links_are_not_followed(play, state, tmp_path):
    session = play(
        "tagged",
        folders=[
            "PREFIX-abc_1234",
            "PREFIX-abc_5678",
            "compilepool-PID-results",
            "compilepool-1-a",
            "other-PID-a",
        ],
    )
    pid = session.process.pid
    prefix = sessionrecord.folder_prefix(pid=pid)
    temporary = tmp_path / "tmp"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (temporary / f"{prefix}thelink1").symlink_to(tmp_path / "precious")
    (temporary / f"{prefix}abc_1234" / "link").symlink_to(tmp_path / "precious")
    open_to_all = temporary / f"{prefix}open_all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o777
    session.kill()
    assert wait_until(lambda: not proctree.alive(session.guard), 5.0)
    assert {path.name for path in temporary.iterdir()} == {
        "compilepool-1-a",
        f"compilepool-{pid}-results",
        f"other-{pid}-a",
        f"{prefix}thelink1",
        f"{prefix}open_all",
    }
    assert (tmp_path / "precious" / "file").exists()
