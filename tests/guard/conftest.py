# SPDX-License-Identifier: Apache-2.0
"""A folder for the records of one test, and processes that play a session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from played import SESSION, Played, is_alive

from pytest_compilepool import proctree


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """The folder of this user's sessions, for this test and all that it starts."""
    monkeypatch.setenv("COMPILEPOOL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv(proctree.TAG, raising=False)
    (tmp_path / "tmp").mkdir()
    # Here it was asked for long ago.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "state"


@pytest.fixture
def play(state):
    """Start a process that plays a session. Takes the kinds of its children, and more for it as keywords."""
    played: list[Played] = []

    def start(*children: str, **more) -> Played:
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION, json.dumps({"children": children, **more})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        assert line, "it did not start"
        told = json.loads(line)
        guard = proctree.lookup(told["guard"])
        assert guard is not None
        played.append(Played(process, guard.key, told["pids"], told["tag"]))
        return played[-1]

    yield start
    for one in played:
        for pid in (one.process.pid, one.guard.pid, *one.pids.values()):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        one.process.wait(10)
        one.process.stdin.close()
        one.process.stdout.close()
