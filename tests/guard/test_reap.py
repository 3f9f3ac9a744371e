# SPDX-License-Identifier: Apache-2.0
"""`compilepool reap`: what earlier sessions have left is listed, and ended only where somebody says so."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import subprocess
import sys
import time

import pytest
from played import is_alive, wait_until

from pytest_compilepool import proctree, sessionrecord
from pytest_compilepool.cli import reap
from pytest_compilepool.cli.main import main
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS

OTHER = 65534


@pytest.fixture
def told(capsys, monkeypatch):
    """Call the command; what it said, and its status."""
    # Of the machine's other pools nothing is to be seen, let alone ended.
    monkeypatch.setattr(reap, "_add_strangers", lambda found: None)

    def call(*arguments: str) -> tuple[str, int]:
        status = main(["reap", *arguments])
        said = capsys.readouterr()
        return said.out + said.err, status

    return call


def test_nothing(told, state):
    assert told() == ("nothing is left of earlier sessions\n", 0)
    assert told("--yes") == ("nothing is left of earlier sessions\n", 0)


def test_what_is_left_is_listed_and_ended_with_yes(told, state, play, tmp_path):
    session = play("tagged", "forked", "worker", "stranger", folders=["PREFIX-abc_1234"])
    session.kill(with_guard=True)
    said, status = told()
    assert status == reap.LEFT
    assert f"session pid {session.process.pid} in /the/root, begun " in said
    assert "ended in test_x.py::test_it (attempt 2)" in said
    for kind in ("tagged", "forked", "worker"):
        assert f"process pid {session.pids[kind]} " in said
    assert f"pid {session.pids['stranger']} " not in said
    assert f"{sessionrecord.folder_prefix(pid=session.process.pid)}abc_1234" in said
    assert "nothing was ended, since there is no terminal to ask at: --yes ends it" in said
    assert session.alive() == {"tagged", "forked", "worker", "stranger"}
    said, status = told("--yes")
    assert status == 0
    assert said.splitlines()[-1] == "ended 3 processes, removed 1 folder and 1 record"
    assert session.alive() == {"stranger"}
    assert list((tmp_path / "tmp").glob("compilepool-*")) == []
    assert told() == ("nothing is left of earlier sessions\n", 0)


def test_folders_of_a_command_that_was_killed(told, state, tmp_path):
    """It keeps no record; its folders carry its pid."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    prefix = sessionrecord.folder_prefix("bench", gone.pid)
    mine, public = (tmp_path / "tmp" / f"{prefix}{name}" for name in ("abc_1234", "abc_5678"))
    living = tmp_path / "tmp" / f"{sessionrecord.folder_prefix('bench')}abc_1234"
    for folder, mode in ((mine, 0o700), (public, 0o755), (living, 0o700)):
        folder.mkdir()
        folder.chmod(mode)
    said, status = told()
    assert status == reap.LEFT
    assert f"pid {gone.pid}, which has gone, left no record:\n  folder  {mine}\n" in said
    assert str(public) not in said
    assert str(living) not in said
    said, status = told("--yes")
    assert (said.splitlines()[-1], status) == ("ended 0 processes, removed 1 folder and 0 records", 0)
    assert not mine.exists()
    assert public.exists()
    assert living.exists()


@pytest.mark.parametrize(
    ("word", "name", "mode", "removed"),
    [
        (
            "prime",
            "abc_1234",
            0o755,
            True,
        ),  # made anew by the compiler of a worker, with its own idea of modes
        ("prime-4711", "abc_1234", 0o755, True),
        ("prime", "abc_1234", 0o775, False),  # others may have put into it what they like
        ("prime", "abc_1234", 0o757, False),
        ("prime", "notes", 0o755, False),  # somebody's own
        ("prime-4711", "abc_1234-old", 0o755, False),
    ],
)
def test_a_folder_for_priming_that_was_made_anew(told, state, tmp_path, word, name, mode, removed):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    folder = tmp_path / "tmp" / f"{sessionrecord.folder_prefix(word, gone.pid)}{name}"
    folder.mkdir()
    folder.chmod(mode)
    told("--yes")
    assert folder.exists() is not removed


@pytest.mark.parametrize(
    "name",
    [
        "PID-results",
        "PID-bench-baseline",
        "PID-20240101-notes",
        "2024-results",
        "20240101-backup",
        "0-notes",
        "PID-MARK-baseline-old",
        "0-MARK-abc_1234",
        "99999999999-MARK-abc_1234",
        "\u0661-MARK-abc_1234",
    ],
)
def test_a_folder_of_the_users_own_is_not_taken_for_one_of_a_command(told, state, tmp_path, name):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    mark = sessionrecord.folder_mark(sessionrecord.boot_id(), sessionrecord.pid_namespace())
    folder = tmp_path / "tmp" / f"compilepool-{name.replace('PID', str(gone.pid)).replace('MARK', mark)}"
    folder.mkdir(mode=0o700)
    assert told("--yes") == ("nothing is left of earlier sessions\n", 0)
    assert folder.exists()


@pytest.mark.parametrize("elsewhere", ["boot", "namespace"])
def test_a_folder_of_another_container_or_machine_is_left_alone(
    told, state, tmp_path, monkeypatch, elsewhere
):
    """They may share the folder for temporary files; its pid says nothing here, and the session may well live."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    with monkeypatch.context() as there:
        there.setattr(
            sessionrecord, {"boot": "boot_id", "namespace": "pid_namespace"}[elsewhere], lambda: "other"
        )
        folder = tmp_path / "tmp" / f"{sessionrecord.folder_prefix('shared', gone.pid)}abc_1234"
    folder.mkdir(mode=0o700)
    assert told("--yes") == ("nothing is left of earlier sessions\n", 0)
    assert folder.exists()


def test_a_folder_of_another_container_stays_where_a_record_has_its_pid(
    told, state, play, tmp_path, monkeypatch
):
    session = play("tagged", folders=["PREFIX-abc_1234"])
    session.kill(with_guard=True)
    with monkeypatch.context() as there:
        there.setattr(sessionrecord, "pid_namespace", lambda: "pid:[1]")
        theirs = tmp_path / "tmp" / f"{sessionrecord.folder_prefix('shared', session.process.pid)}abc_1234"
    theirs.mkdir(mode=0o700)
    said, status = told("--yes")
    assert (said.splitlines()[-1], status) == ("ended 1 process, removed 1 folder and 1 record", 0)
    assert list((tmp_path / "tmp").iterdir()) == [theirs]


def test_where_the_machine_cannot_be_told_no_folder_is_taken(told, state, tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    monkeypatch.setattr(sessionrecord, "pid_namespace", lambda: "")
    folder = tmp_path / "tmp" / f"{sessionrecord.folder_prefix('shared', gone.pid)}abc_1234"
    folder.mkdir(mode=0o700)
    told("--yes")
    assert folder.exists()


@pytest.mark.parametrize("word", ["", "bench", "shared", "vllm", "prime", "prime-4711"])
def test_every_folder_that_a_killed_command_leaves_is_found(told, state, word):
    """One that `tempfile` itself has named."""
    code = (
        "import sys, tempfile; from pytest_compilepool.sessionrecord import folder_prefix;"
        "print(tempfile.mkdtemp(prefix=folder_prefix(sys.argv[1])))"
    )
    made = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, timeout=60)
    folder = made.stdout.strip()
    assert os.path.isdir(folder), made.stderr
    told("--yes")
    assert not os.path.exists(folder)


def test_a_session_that_runs_is_left_alone(told, state, play):
    session = play("tagged", "worker")
    assert told("--yes") == ("1 session is running, and left alone\n", 0)
    assert session.alive() == {"tagged", "worker"}
    assert len(sessionrecord.records(state)) == 1


def test_what_its_guard_has_ended_is_told_once(told, state, play):
    session = play("tagged")
    session.kill()
    assert wait_until(lambda: session.alive() == set())
    (path,) = sessionrecord.records(state)
    assert wait_until(lambda: sessionrecord.read_account(path).died)
    said, status = told()
    assert "; 1 process still there then, and ended" in said
    assert "nothing of it is left but its record" in said
    assert said.splitlines()[-1] == "no process and no folder is left; --yes removes the records"
    assert status == 0
    said, status = told("--yes")
    assert said.splitlines()[-1] == "ended 0 processes, removed 0 folders and 1 record"
    assert status == 0
    assert told() == ("nothing is left of earlier sessions\n", 0)


def test_json(told, state, play):
    session = play("tagged", worker="gw3")
    session.kill(with_guard=True)
    said, status = told("--json")
    found = json.loads(said)
    assert found["sessions"] == [
        {
            "pid": session.process.pid,
            "root": "/the/root",
            "worker": "gw3",
            "test": "test_x.py::test_it",
            "attempt": 2,
            "begun": found["sessions"][0]["begun"],
            "ended_then": [],
            "processes": [
                {"pid": session.pids["tagged"], "command": proctree.command(session.pids["tagged"])}
            ],
            "folders": [],
        }
    ]
    assert 0 <= time.time() - found["sessions"][0]["begun"] < 3600
    assert found["ended"] is None
    assert status == reap.LEFT
    said, status = told("--json", "--yes")
    assert json.loads(said)["ended"] == {"processes": 1, "folders": 0, "records": 1, "left": []}
    assert status == 0


@pytest.mark.parametrize(("answer", "ended"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_it_asks_at_a_terminal(state, play, answer, ended):
    session = play("tagged")
    session.kill(with_guard=True)
    ours, theirs = pty.openpty()
    code = (
        "from pytest_compilepool.cli import reap; reap._add_strangers = lambda found: None;"
        "from pytest_compilepool.cli.main import main; raise SystemExit(main(['reap']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=subprocess.PIPE, text=True)
    os.close(theirs)
    os.write(ours, answer.encode() or b"\x04")
    said, _ = process.communicate(timeout=30)
    os.close(ours)
    assert "End all of this? [y/N]" in said
    assert (process.returncode == 0) is ended
    assert (session.alive() == set()) is ended


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "it is a symbolic link"),
        (lambda path: path.write_text("{}\n"), "is not used"),
        (lambda path: (path.write_text("x"), path.chmod(0o666)), "not a file that only this user may write"),
        (lambda path: os.mkfifo(path, 0o600), "not a file that only this user may write"),
        (lambda path: path.mkdir(), "is not used"),
    ],
    ids=["a link", "not a record", "anybody may write it", "a pipe", "a folder"],
)
def test_a_record_that_was_planted_is_named_and_not_used(told, state, play, plant, says):
    session = play("tagged")
    session.kill(with_guard=True)
    path = state / "sessions" / "1-planted.jsonl"
    plant(path)
    said, status = told("--yes")
    assert says in said
    assert str(path) in said
    assert status == 0
    assert session.alive() == set()  # the others are not lost over it
    assert path.is_symlink() or path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_record_of_another_user_is_not_used(told, state, play):
    session = play("tagged")
    session.kill(with_guard=True)
    (path,) = sessionrecord.records(state)
    os.chown(path, OTHER, OTHER)
    said, _ = told("--yes")
    assert "not a file that only this user may write" in said
    assert session.alive() == {"tagged"}


def test_a_record_with_a_strangers_pid_ends_nobody(told, state, play):
    """Someone could have written there the pid of anything: pid, start, tag and mark must agree with the process."""
    session = play("stranger")
    (path,) = sessionrecord.records(state)
    session.kill(with_guard=True)
    lines = path.read_text().splitlines()
    owner = json.loads(lines[0])
    owner["owner"] |= {"pid": os.getpid(), "tag": "", "mark": ""}
    path.write_text("\n".join([json.dumps(owner), *lines[1:]]))
    path.chmod(0o600)
    assert told("--yes")[1] == 0
    assert session.alive() == {"stranger"}
    assert is_alive(os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start a process as somebody else")
def test_an_orphan_of_somebody_else_is_named_and_left(capsys, state, play):
    worker = "/the/torch/_inductor/compile_worker/__main__.py"
    command = ["/bin/sh", "-c", "echo up; read line", worker, "--parent=4194303"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen(command, user=OTHER, group=OTHER, cwd="/", **pipes)
    try:
        assert other.stdout.readline() == b"up\n"
        assert main(["reap"]) in (0, reap.LEFT)
        said = capsys.readouterr().out
        assert "not this user's, and left alone: workers of pools without a parent, pid " in said
        assert str(other.pid) in said
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)
        other.stdin.close()
        other.stdout.close()


def test_a_pool_without_a_record_is_found_by_its_parent(state, play):
    """And nothing else: somebody's own program may have such words on its command line."""
    session = play("worker", "namesake", "daemon")
    session.kill(with_guard=True)
    for path in sessionrecord.records(state):
        path.unlink()
    found = reap.survey(state)
    (mine,) = [one for one in found.finds if one.parent == session.process.pid]
    assert [row.pid for row in mine.processes] == [session.pids["worker"]]
    assert reap.end(mine) == []
    assert session.alive() == {"namesake", "daemon"}


def test_a_worker_whose_parents_pid_somebody_else_has_now(state, play, monkeypatch):
    session = play("worker")
    rows = proctree.table
    for path in sessionrecord.records(state):
        path.unlink()
    assert not [one for one in reap.survey(state).finds if one.parent == session.process.pid]

    def reused():
        found = rows()
        row = found[session.process.pid]
        later = dataclasses.replace(row.key, started=row.key.started + 1000)
        return {**found, row.pid: dataclasses.replace(row, key=later)}

    monkeypatch.setattr(reap.proctree, "table", reused)
    (mine,) = [one for one in reap.survey(state).finds if one.parent == session.process.pid]
    assert [row.pid for row in mine.processes] == [session.pids["worker"]]


def test_a_session_of_another_container_is_left_alone(told, state, play):
    session = play("tagged")
    (path,) = sessionrecord.records(state)
    lines = path.read_text().splitlines()
    owner = json.loads(lines[0])
    owner["owner"]["namespace"] = "pid:[1]"
    session.kill(with_guard=True)
    path.write_text("\n".join([json.dumps(owner), *lines[1:]]))
    assert told("--yes") == ("1 session is of other machines or containers, and left alone\n", 0)
    assert session.alive() == {"tagged"}
    assert path.exists()


def test_without_a_home(told, monkeypatch):
    for name in ("COMPILEPOOL_STATE", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    said, status = told()
    assert "the home folder is not known, so there is no place for records" in said
    assert status == BAD_ARGUMENTS


def test_a_state_folder_that_cannot_be(told, monkeypatch):
    monkeypatch.setenv("COMPILEPOOL_STATE", "here")
    said, status = told()
    assert said == "compilepool reap: COMPILEPOOL_STATE: 'here' is not allowed; allowed: an absolute path\n"
    assert status == BAD_ARGUMENTS
