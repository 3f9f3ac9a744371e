# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench vllm`: what is made of starts, and what it refuses; no engine is started here."""

from __future__ import annotations

import json

import pytest

from pytest_compilepool import vllm_compat
from pytest_compilepool.bench.result import BadResult
from pytest_compilepool.cli import bench_vllm as command
from pytest_compilepool.cli.main import main
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS
from pytest_compilepool.vllm.engines import bench
from pytest_compilepool.vllm.engines.bench import Measured, Sample
from pytest_compilepool.vllm.engines.order import Engine, Run


def sample(pair: int, processes: int, graph: float, kernels: int = 10, phase: str = "cold") -> Sample:
    where = {"pool" if processes > 1 else "process": kernels} if kernels else {}
    engine = Engine(
        seconds={"init": 50.0},
        logged={"graph_compile": graph, "torch_compile": 2 * graph, "init_engine": 4 * graph},
        clock={"triton": 2.0 if processes == 1 else 0.0, "wait": 0.5, "kernels": kernels},
        kernels=where,
    )
    return Sample(pair, processes, phase, Run(engines=[engine]))


def text(measured: Measured) -> str:
    return "\n".join(command.as_text(measured, [1, 8], {}))


def test_the_change_is_the_median_of_the_rounds():
    # Each round by itself: the second one was on a machine that was twice as slow.
    measured = Measured(
        [
            sample(0, 1, 10),
            sample(0, 8, 8),
            sample(1, 8, 18),
            sample(1, 1, 20),
            sample(2, 1, 10),
            sample(2, 8, 9),
        ]
    )
    assert measured.change("graph_compile", 8, 1, "cold") == pytest.approx(10.0)
    assert measured.bound(1) == pytest.approx(
        {"graph_compile": 20.0, "torch_compile": 10.0, "init_engine": 5.0}
    )
    said = text(measured)
    assert "9.00 (+10.0%)" in said
    assert "10, 100%" in said
    assert "10, 0%" in said
    assert "no pool can take off more" in said
    assert "chance" not in said


def test_a_round_that_lacks_one_is_left_out():
    measured = Measured([sample(0, 1, 10), sample(1, 1, 10), sample(1, 8, 5)])
    assert measured.change("graph_compile", 8, 1, "cold") == pytest.approx(50.0)
    assert Measured([sample(0, 1, 10)]).change("graph_compile", 8, 1, "cold") is None
    assert "nothing was measured" in text(Measured())


def test_where_no_kernel_can_go_to_a_pool_it_says_so():
    said = text(Measured([sample(0, 1, 10, 0), sample(0, 8, 8, 0)]))
    assert "Not one kernel could go to a pool (on a CPU they are C++): what differs is chance." in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--processes", "1"], "--processes: '1' is not allowed; allowed: two or more different numbers"),
        (["--processes", "1,1"], "allowed: two or more different numbers"),
        (["--processes", "1,x"], "--processes: 'x' is not allowed"),
        (["--runs", "0"], "--runs: '0' is not allowed; allowed: whole numbers from 1 to 1000"),
        (["--warm", "-1"], "--warm: '-1' is not allowed"),
        (["--limit", "soon"], "--limit: 'soon' is not allowed"),
        (["--engine", "{"], "--engine: '{' is no JSON"),
        (["--engine", "[]"], "--engine: '[]' is not allowed; allowed: a JSON object"),
        (["--model", "/nowhere"], "--model: '/nowhere' is neither a folder"),
        (
            ["--json", "/nowhere/x"],
            "--json: '/nowhere/x' is not allowed; allowed: a file in a folder that is there",
        ),
        (["--json", "/tmp"], "--json: '/tmp' is not allowed"),
    ],
)
def test_what_it_refuses_before_anything_is_started(capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.32.0")
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was started"))
    assert main(["bench", "vllm", *arguments]) == BAD_ARGUMENTS
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_without_vllm(capsys, monkeypatch):
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: None)
    assert main(["bench", "vllm"]) == BAD_ARGUMENTS
    assert "vLLM is not installed" in capsys.readouterr().err


def test_every_start_is_written(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.32.0")
    found = Measured([sample(0, 1, 10), sample(0, 8, 8)], faults=["one failed"])
    monkeypatch.setattr(bench, "measure", lambda *_, **__: found)
    file = tmp_path / "starts.json"
    assert main(["bench", "vllm", "--json", str(file)]) == 1
    told = json.loads(file.read_text())
    assert [one["graph_compile"] for one in told["samples"]] == [10, 8]
    assert told["faults"] == ["one failed"]
    assert "(+20.0%)" in capsys.readouterr().out


def test_what_was_written_comes_back(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_compat, "vllm_version", lambda: "0.32.0")
    found = Measured(
        [sample(0, 1, 10), sample(0, 8, 8), sample(1, 8, 9, phase="warm")], faults=["one failed"]
    )
    monkeypatch.setattr(bench, "measure", lambda *_, **__: found)
    file = tmp_path / "starts.json"
    main(["bench", "vllm", "--json", str(file)])
    shown = capsys.readouterr().out
    assert main(["bench", "vllm", "--from", str(file)]) == 1
    assert capsys.readouterr().out == shown
    told = json.loads(file.read_text())
    assert bench.as_json(*_with_processes(bench.from_json(told))) == told


def _with_processes(read):
    measured, about = read
    return measured, about["processes"], about


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bench": "pool"}, "it is no result of `compilepool bench vllm`"),
        (
            {"schema": 2, "bench": 7},
            "its schema is 2, and the last one that is known here is 1: a newer pytest-comp",
        ),
        ({"schema": "1"}, "its schema, '1', is no whole number from 1"),
        ({"schema": True}, "its schema, True, is no whole number from 1"),
        ({"samples": [{"pair": 0}]}, "a start in it cannot be read: KeyError: 'phase'"),
        ({"samples": [7]}, "a start in it cannot be read: AttributeError"),
        ({"processes": [8]}, "it compares no two numbers of processes"),
        ({"processes": [1, 1, 8]}, "it compares no two numbers of processes"),
        ({"samples": [{"phase": "hot"}]}, "a start in it cannot be read: ValueError"),
        ({"samples": [{"phases": {"x": "y"}}]}, "a start in it cannot be read: ValueError: 'y' is no number"),
        ({"samples": [{"phase": "cold", "init": 10**400}]}, "a start in it cannot be read: ValueError: 1000"),
        ({"processes": [1, 2]}, "its starts have other numbers of processes than it says"),
    ],
)
def test_a_file_that_is_none_is_refused(change, says):
    told = bench.as_json(Measured([sample(0, 1, 10), sample(0, 8, 8)]), [1, 8], {"processes": [1, 8]})
    with pytest.raises(BadResult, match=says):
        bench.from_json({**told, **change})
