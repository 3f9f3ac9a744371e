# SPDX-License-Identifier: Apache-2.0
"""Whatever ends a session, what carries its marks ends after it, and nothing else does."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import is_alive, wait_until

from pytest_compilepool import proctree, sessionrecord
from pytest_compilepool.guard import ending
from pytest_compilepool.guard.warden import Warden

OURS = {"tagged", "deaf", "forked", "worker"}
OTHERS = {"stranger", "namesake"}


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
    assert wait_until(lambda: not state.exists())
    assert not proctree.alive(session.guard)
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
        "from conftest import SESSION\n"
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


def test_it_is_nobodys_child_and_takes_no_time(state):
    children = psutil.Process().children(recursive=True)
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
        assert sorted(os.listdir(f"/proc/{pid}/fd"))[:3] == ["0", "1", "2"]
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in "012"} == {"/dev/null"}
    finally:
        warden.close()
    assert not is_alive(pid)
    assert not state.exists()


def test_without_a_place_there_is_no_guard_and_one_sentence(state, monkeypatch):
    monkeypatch.setenv("COMPILEPOOL_STATE", "/dev/null/x")
    warden = Warden(Path("/the/root"))
    assert "/dev/null/x" in warden.trouble
    assert warden.pids == set()
    warden.close()


def test_where_no_interpreter_can_be_started(state, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    warden = Warden(Path("/the/root"))
    assert "/bin/false has not started it" in warden.trouble
    assert sessionrecord.records(state) == []
    warden.close()


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
        "tagged", folders=["compilepool-PID-a", "compilepool-PID-b", "compilepool-1-a", "other-PID-a"]
    )
    pid = session.process.pid
    temporary = tmp_path / "tmp"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (temporary / f"compilepool-{pid}-link").symlink_to(tmp_path / "precious")
    (temporary / f"compilepool-{pid}-a" / "link").symlink_to(tmp_path / "precious")
    open_to_all = temporary / f"compilepool-{pid}-open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o777
    session.kill()
    assert wait_until(lambda: not proctree.alive(session.guard), 5.0)
    assert {path.name for path in temporary.iterdir()} == {
        "compilepool-1-a",
        f"other-{pid}-a",
        f"compilepool-{pid}-link",
        f"compilepool-{pid}-open",
    }
    assert (tmp_path / "precious" / "file").exists()
