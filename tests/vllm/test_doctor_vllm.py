# SPDX-License-Identifier: Apache-2.0
"""`compilepool doctor --vllm`: what it says of a vLLM, of what is asked for, and of a file with events."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import types

import pytest

from pytest_compilepool import vllm_compat
from pytest_compilepool.cli import doctor
from pytest_compilepool.cli.main import main
from pytest_compilepool.vllm.events import EventLog

ENTRY = "pytest_compilepool.vllm.plugin:register"
ABLE = types.SimpleNamespace(
    torch="2.13.0",
    quiesce=True,
    start_methods=("subprocess",),
    as_json=lambda: {"torch": "2.13.0", "quiesce": True},
)


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """A known vLLM, a torch that can quiesce, and no variable set."""
    for name in ("VLLM_COMPILE_PROCESSES", "VLLM_COMPILE_POOL_READY_TIMEOUT", "VLLM_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.17.1")
    monkeypatch.setattr(doctor, "capabilities", lambda: ABLE)


@pytest.fixture
def told(capsys):
    """Call the command; what it said, by the name of the row, or the whole of the refusal."""

    def call(*arguments, status=0):
        assert main(["doctor", *arguments]) == status
        said = capsys.readouterr()
        if status:
            assert said.out == ""
            return said.err
        if "--json" in arguments:
            return json.loads(said.out)["vllm"]
        lines = said.out.partition("What happens in vLLM here\n")[2].splitlines()
        return {line[2:26].strip(): line[26:] for line in lines if line.startswith("  ")}

    return call


@pytest.fixture
def events(tmp_path):
    """A file as a worker writes it, which has died while it wrote its last line."""
    file = tmp_path / "events.jsonl"
    log = EventLog(str(file))
    log.note("warm", "STARTING", 0.25, when="init_worker", sidecar=77)
    log.note("warmed-up", "QUIESCED")
    with file.open("a") as torn:
        torn.write('{"what": "shut')
    return file


def test_without_the_flag_nothing_is_said_of_it(capsys):
    assert main(["doctor"]) == 0
    assert "vLLM here" not in capsys.readouterr().out


def test_a_known_vllm(told):
    said = told("--vllm")
    assert said["vLLM"] == "0.17.1"
    assert said["known"] == "yes, one of 0.17 to 0.33"
    assert said["hooks"] == (
        "worker.load_model, runner.capture_model (captures), worker.compile_or_warm_up_model, worker.shutdown"
    )
    assert said["asked for"] == "nothing: VLLM_COMPILE_PROCESSES is not set"
    assert said["processes"] == "no pool"


def test_another_vllm_and_none(told, monkeypatch):
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.99.0")
    said = told("--vllm")
    assert said["known"] == "no, none of 0.17 to 0.33: left alone"
    assert said["hooks"] == "-"
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: None)
    said = told("--vllm")
    assert (said["vLLM"], said["known"], said["hooks"]) == ("not installed", "-", "-")


def test_what_is_asked_for(told, monkeypatch):
    monkeypatch.setenv("VLLM_COMPILE_PROCESSES", "3")
    monkeypatch.setenv("VLLM_COMPILE_POOL_READY_TIMEOUT", "2.5")
    said = told("--vllm")
    assert said["asked for"] == (
        "VLLM_COMPILE_PROCESSES=3, ready within 2.5 s, a job within 600 s, events to no file"
    )
    assert said["processes"].startswith("3 (")


def test_without_torch(told, monkeypatch, capsys):
    from pytest_compilepool.torch_compat import TorchUnavailable

    def none():
        raise TorchUnavailable("torch is not installed")

    monkeypatch.setattr(doctor, "capabilities", none)
    monkeypatch.setenv("VLLM_COMPILE_PROCESSES", "3")
    assert main(["doctor", "--vllm"]) == 1
    assert "cannot be told without torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("VLLM_COMPILE_PROCESSES", "lots", "a whole number from 1 to 1024, or auto"),
        ("VLLM_COMPILE_POOL_READY_TIMEOUT", "soon", "seconds, above 0 and up to 86400"),
    ],
)
def test_a_setting_that_is_none(told, monkeypatch, variable, value, allowed):
    monkeypatch.setenv("VLLM_COMPILE_PROCESSES", "2")
    monkeypatch.setenv(variable, value)
    said = told("--vllm", status=2)
    assert said.startswith(f"compilepool doctor: {variable}")
    assert repr(value) in said
    assert allowed in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("plugins", "word"),
    [
        (None, "allowed: VLLM_PLUGINS is not set"),
        ("a,compilepool", "allowed: VLLM_PLUGINS=a,compilepool"),
        ("a, compilepool", "not allowed: VLLM_PLUGINS=a, compilepool"),
        ("", "not allowed: VLLM_PLUGINS="),
    ],
)
def test_whether_vllm_may_call_it(told, monkeypatch, plugins, word):
    if plugins is not None:
        monkeypatch.setenv("VLLM_PLUGINS", plugins)
    assert told("--vllm")["plugin"] == f"{ENTRY}, {word}"


def test_where_the_entry_point_is_not_installed(told, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **named: ())
    assert told("--vllm")["plugin"] == "not installed: there is no 'compilepool' in vllm.general_plugins"


def test_a_table_of_events(capsys, events):
    assert main(["doctor", "--events", str(events)]) == 0
    lines = capsys.readouterr().out.partition("(seconds since the first)\n")[2].splitlines()
    head, first = (line.split() for line in lines[:2])
    assert head == ["at", "pid", "what", "state", "took", "detail"]
    assert first == [
        *("0.000", str(os.getpid()), "warm", "STARTING", "0.250", "when=init_worker", "sidecar=77"),
    ]
    at, _, what, state, took = lines[2].split()
    assert 0.25 <= float(at) < 5
    assert (what, state, took) == ("warmed-up", "QUIESCED", "-")
    assert len(lines) == 3


def test_as_json(told, events, monkeypatch):
    monkeypatch.setenv("VLLM_COMPILE_PROCESSES", "3")
    said = told("--vllm", "--json", "--events", str(events))
    assert (said["version"], said["known"], said["releases"]) == ("0.17.1", True, ["0.17", "0.33"])
    assert [hook["name"] for hook in said["hooks"]][:2] == ["load_model", "capture_model"]
    assert said["settings"]["processes"] == "3"
    assert said["decision"]["processes"] == 3
    assert said["plugin"] == {"entry_point": ENTRY, "allowed": True, "allowed_by": None}
    assert [event["what"] for event in said["events"]] == ["warm", "warmed-up"]
    assert said["events"][0]["took"] == 0.25


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "holds no event"),
        ("no event\n", "holds no event"),
        ('{"what": "warm", "at": "now", "pid": 1, "state": "READY"}\n', "holds no event"),
    ],
)
def test_no_events(told, tmp_path, content, why, monkeypatch):
    monkeypatch.setattr(doctor, "capabilities", lambda: pytest.fail("torch was imported for nothing"))
    file = tmp_path / "events.jsonl"
    if content is not None:
        file.write_text(content)
    said = told("--events", str(file), status=2)
    assert said.startswith(f"compilepool doctor: --events: {str(file)!r} {why}")
    assert said.count("\n") == 1


def test_a_folder_is_no_file(told, tmp_path):
    assert "cannot be read: not a regular file" in told("--events", str(tmp_path), status=2)


def test_what_would_be_waited_for_is_no_file(told, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be read: not a regular file" in told("--events", str(tmp_path / "pipe"), status=2)
    assert "cannot be read: not a regular file" in told("--events", "/dev/zero", status=2)
    assert "cannot be read: embedded null" in told("--events", "a\0b", status=2)


GOOD = {"what": "warm", "at": 5.0, "pid": 1, "state": "starting", "took": None, "detail": {}}


@pytest.mark.parametrize(
    "changed",
    [
        {"at": "now"},
        {"at": None},
        {"at": True},
        {"at": 10**400},
        {"at": float("nan")},
        {"at": float("inf")},
        {"took": "long"},
        {"took": float("nan")},
        {"pid": "1"},
        {"what": 7},
        {"what": None},
        {"state": []},
        {"detail": "text"},
        {"detail": None},
        {"more": 1},
    ],
    ids=lambda changed: f"{next(iter(changed))}-{str(next(iter(changed.values())))[:8]}",
)
def test_a_line_that_is_no_event_is_left_out(capsys, tmp_path, changed):
    file = tmp_path / "events.jsonl"
    file.write_text(f"{json.dumps({**GOOD, **changed})}\n{json.dumps(GOOD)}\n")
    assert main(["doctor", "--vllm", "--events", str(file)]) == 0
    assert capsys.readouterr().out.count("starting") == 1


def test_what_a_terminal_would_obey_is_not_printed(capsys, tmp_path):
    file = tmp_path / "events.jsonl"
    detail = {"where": "\x1b[2J\ud800\n", "\x07": 1}
    file.write_text(json.dumps({**GOOD, "what": "\u202ewarm", "detail": detail}))
    assert main(["doctor", "--vllm", "--events", str(file)]) == 0
    said = capsys.readouterr().out
    assert "where=?[2J?? ?=1" in said
    assert "?warm" in said


def test_vllm_is_not_imported(told):
    had = "vllm" in sys.modules
    told("--vllm")
    assert ("vllm" in sys.modules) == had
