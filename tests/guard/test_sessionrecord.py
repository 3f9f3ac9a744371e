# SPDX-License-Identifier: Apache-2.0
"""A record outlives its process, loses one line at most, and is believed only where it can be."""

from __future__ import annotations

import json
import os

import pytest

from pytest_compilepool import places, proctree, sessionrecord
from pytest_compilepool.sessionrecord import Owner, SessionRecord, read_account


def owner(**changes) -> Owner:
    key = proctree.own_key()
    told = {
        "pid": key.pid,
        "started": key.started,
        "boot": sessionrecord.boot_id(),
        "tag": f"{key.pid}-abc",
        "host": os.uname().nodename,
        "namespace": sessionrecord.pid_namespace(),
    }
    return Owner(**{**told, **changes})


@pytest.fixture
def record(tmp_path):
    made = SessionRecord(owner(worker="gw1"), tmp_path)
    yield made
    made.close()


def test_what_is_running(record):
    assert read_account(record.path).running == ""
    record.began("test_a.py::test_x[\n\ud800]", 1)
    account = read_account(record.path)
    assert account.running == "test_a.py::test_x[\n\ud800]"
    assert account.owner == record.owner
    record.ended("test_a.py::test_x", 1, "passed")
    record.began("test_a.py::test_y", 3)
    account = read_account(record.path)
    assert (account.running, account.attempt, account.ended) == ("test_a.py::test_y", 3, 1)


def test_a_torn_line_loses_itself_only(record):
    record.began("a", 1)
    record.ended("a", 1, "passed")
    record.began("b", 1)
    with open(record.path, "ab") as file:
        file.write(b'{"ended": "b", "att')
    account = read_account(record.path)
    assert (account.running, account.ended, account.torn) == ("b", 1, 1)
    sessionrecord.note_death(record.path, {"test": "b"})
    account = read_account(record.path)
    assert (account.died, account.torn) == ({"test": "b"}, 1)


def test_the_file_goes_with_the_session_and_its_folders_too(tmp_path):
    folder = tmp_path / "state"
    one = SessionRecord(owner(tag="1-a"), folder)
    other = SessionRecord(owner(tag="1-b"), folder)
    assert len(sessionrecord.records(folder)) == 2
    one.close()
    assert sessionrecord.records(folder) == [other.path]
    other.close()
    assert not folder.exists()
    other.close()
    other.began("after the end", 1)


def test_whether_it_lives(record):
    assert read_account(record.path).owner.is_alive
    assert not owner(started=1.0).is_alive
    assert not owner(boot="another").is_alive
    assert not owner(pid=2**22 + 7).is_alive


def test_it_does_not_grow_without_bound(record, monkeypatch):
    monkeypatch.setattr(sessionrecord, "_LARGEST", 2000)
    for number in range(500):
        record.began(f"test_{number}", 1)
        if number < 499:
            record.ended(f"test_{number}", 1, "passed")
    assert record.path.stat().st_size < 3000
    account = read_account(record.path)
    assert (account.running, account.ended, account.torn) == ("test_499", 499, 0)
    assert account.owner == record.owner


@pytest.mark.parametrize("reused", [True, False])
def test_a_test_may_close_every_descriptor(record, tmp_path, reused):
    """What has the number now is the test's own: nothing is written there, and it is not closed."""
    number = record.handle
    os.close(number)
    other = os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT) if reused else None
    assert other in (None, number)
    record.began("after it", 1)
    assert read_account(record.path).running == "after it"
    record.close()
    assert not record.path.exists()
    if other is not None:
        assert os.fstat(other).st_size == 0
        os.close(other)


def test_a_record_that_was_removed(record):
    os.unlink(record.path)
    os.close(record.handle)
    record.began("a", 1)
    assert record.handle is None
    record.close()


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(sessionrecord.os, "write", _no_space)
    with pytest.raises(places.PlaceError, match="cannot be written: No space left on device"):
        SessionRecord(owner(), tmp_path)
    assert sessionrecord.records(tmp_path) == []


def _no_space(*_):
    raise OSError(28, "No space left on device")


GOOD = {"pid": 5, "started": 1.5, "boot": "x", "host": os.uname().nodename}


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\n",
        b"no json",
        b"[1]",
        b"{}",
        b'{"owner": []}',
        b"[" * 100_000,
        *(
            json.dumps({"owner": {**GOOD, **bad}}).encode()
            for bad in (
                {"pid": "5"},
                {"pid": True},
                {"pid": 0},
                {"pid": 1},
                {"pid": -5},
                {"pid": 2**40},
                {"pid": None},
                {"started": "x"},
                {"started": None},
                {"started": float("nan")},
                {"started": float("inf")},
                {"started": 10**400},
                {"at": "x"},
                {"tag": 1},
                {"mark": None},
                {"temporary": ["/tmp"]},
                {"root": "x" * 5000},
            )
        ),
    ],
    ids=lambda first: first[:60].decode(),
)
def test_what_is_no_record_is_refused_in_a_sentence(tmp_path, first):
    path = tmp_path / "1-a.jsonl"
    path.write_bytes(first)
    path.chmod(0o600)
    with pytest.raises(places.PlaceError, match="does not begin as the record of a session does"):
        read_account(path)


def test_what_a_later_release_adds_is_passed_over(tmp_path):
    path = tmp_path / "1-a.jsonl"
    lines = [
        {"owner": {**GOOD, "colour": "red"}, "schema": 9},
        {"began": "a", "attempt": "first"},
        {"more": 1},
        {"began": 7},
        [],
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    path.chmod(0o600)
    account = read_account(path)
    assert (account.owner.pid, account.running, account.attempt) == (5, "a", 1)


def test_those_that_are_many_are_forgotten(tmp_path, record):
    folder = record.path.parent
    for number in range(30):
        path = folder / f"{number}.jsonl"
        path.write_text(json.dumps({"owner": {**GOOD, "pid": 100 + number}}))
        path.chmod(0o600)
        os.utime(path, (number, number))
    os.utime(record.path, (0, 0))
    sessionrecord.prune(tmp_path, keep=10)
    left = {path.name for path in sessionrecord.records(tmp_path)}
    # The oldest of all lives.
    assert left == {f"{number}.jsonl" for number in range(20 + 1, 30)} | {"20.jsonl", record.path.name}
