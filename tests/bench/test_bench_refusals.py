# SPDX-License-Identifier: Apache-2.0
"""What `compilepool bench pool` and `bench compile` refuse: one sentence, before anything is started."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pytest_compilepool import resources
from pytest_compilepool.bench import compile, pool, svg
from pytest_compilepool.cli.main import main
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS
from pytest_compilepool.pool import policy
from pytest_compilepool.resources import Gpus

pytest.importorskip("triton", reason="without torch and triton that is what is refused")
pytest.importorskip("torch", reason="without torch and triton that is what is refused")


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    for owner in (pool, compile):
        monkeypatch.setattr(owner, "measure", lambda *_, **__: pytest.fail("it was started"))


def refused(capsys, *arguments: str) -> str:
    assert main(["bench", *arguments]) == BAD_ARGUMENTS
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("compilepool bench: ")
    return said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pool", "--processes", "1"], "--processes: '1' is not allowed; allowed: whole numbers from 2"),
        (["pool", "--processes", "2,2"], "--processes: '2,2' is not allowed; allowed: one or more different"),
        (["pool", "--processes", "2,"], "--processes: '' is not allowed"),
        (["pool", "--runs", "0"], "--runs: '0' is not allowed; allowed: whole numbers from 1 to 1000"),
        (["pool", "--idle", "-1"], "--idle: '-1' is not allowed; allowed: whole numbers from 0 to 3600"),
        (
            ["pool", "--idle", "9", "--limit", "9"],
            "--idle: '9' is not allowed; allowed: less than --limit, 9",
        ),
        (["pool", "--limit", "soon"], "--limit: 'soon' is not allowed"),
        (["pool", "--prime", "maybe"], "--prime: 'maybe' is not allowed; allowed: yes, no, both"),
        (["pool", "--target", "abacus"], "--target: 'abacus' is not allowed; allowed: cuda:75"),
        (
            ["pool", "--json", "/nowhere/x"],
            "--json: '/nowhere/x' is not allowed; allowed: a file in a folder",
        ),
        (["pool", "--svg", "/tmp"], "--svg: '/tmp' is not allowed"),
        (
            ["pool", "--svg", "x.png"],
            "--svg: 'x.png' is not allowed; allowed: a file whose name ends in .svg",
        ),
        (["pool", "--json", ""], "--json: '' is not allowed; allowed: a file in a folder"),
        (["pool", "--json", "/proc/x.json"], "--json: '/proc/x.json' is not allowed; allowed: a file in"),
        (["pool", "--json", "x.svg", "--svg", "./x.svg"], "'./x.svg' is given twice"),
        (["pool", "--from", "x.svg", "--svg", "x.svg"], "'x.svg' is given twice"),
        (["compile", "--processes", "0,2"], "--processes: '0' is not allowed; allowed: whole numbers from 1"),
        (
            ["compile", "--workload", "novel"],
            "--workload: 'novel' is not allowed; allowed: kernels, model, programs",
        ),
        (["compile", "--workload", "model,model"], "--workload: 'model,model' is not allowed"),
        (["compile", "--workload", "model,"], "--workload: 'model,' is not allowed"),
        (
            ["compile", "--kernels", "21"],
            "--kernels: '21' is not allowed; allowed: whole numbers from 1 to 20",
        ),
        (
            ["compile", "--kernels", "4", "--workload", "model"],
            "--kernels: '4' is not allowed without `kernels`",
        ),
        (["compile", "--target", "cuda:91"], "--target: 'cuda:91' is not allowed; allowed: cuda:75"),
        (["compile", "--prime", "maybe"], "--prime: 'maybe' is not allowed"),
        (["compile", "--from", "/nowhere"], "--from: '/nowhere' cannot be read: No such file or directory"),
        (["compile", "--from", "/tmp"], "--from: '/tmp' is not allowed; allowed: a file that"),
        (["compile", "--from", __file__], "is no JSON; allowed: what --json has written"),
        (["compile", "--from", "/nowhere", "--runs", "3"], "--runs: '3' is not allowed with --from"),
        (["compile", "--from", "/nowhere", "--no-prime"], "--prime: 'no' is not allowed with --from"),
        (["compile", "--from", "/nowhere", "--json", "x"], "--json: 'x' is not allowed with --from"),
    ],
)
def test_what_it_refuses_before_anything_is_started(capsys, arguments, says):
    assert says in refused(capsys, *arguments)


def test_a_result_of_another_bench(capsys, tmp_path, pools):
    file = tmp_path / "saved.json"
    file.write_text(json.dumps(pools.as_json()))
    for bench in ("compile", "vllm"):
        assert "--from: " in refused(capsys, bench, "--from", str(file))


def test_a_plot_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(svg, "available", lambda: False)
    for bench in ("pool", "compile", "vllm"):
        said = refused(capsys, bench, "--svg", str(tmp_path / "x.svg"))
        assert "needs matplotlib, which is not installed (pip install 'pytest-compilepool[plot]')" in said


def test_a_gpu_that_is_not_here(capsys, monkeypatch):
    monkeypatch.setattr(resources, "gpu_count", lambda: Gpus(0, "none"))
    said = refused(capsys, "compile", "--target", "here")
    assert (
        "--target: 'here' is not allowed here: there is no GPU that this process may use; allowed: cuda:75"
        in said
    )


def test_a_gpu_that_torch_does_not_see(capsys, monkeypatch):
    monkeypatch.setattr(resources, "gpu_count", lambda: Gpus(1, "one"))

    def ask(limit):
        raise compile.starts.StartFailed("torch sees no GPU here")

    monkeypatch.setattr(compile, "ask_gpu", ask)
    assert "--target: 'here' is not allowed here: torch sees no GPU here" in refused(
        capsys, "compile", "--target", "here"
    )


def test_what_is_measured_must_be_said(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench"])
    assert ended.value.code == BAD_ARGUMENTS
    assert "WHAT" in capsys.readouterr().err


def test_a_run_that_failed_makes_it_1_and_what_was_asked_for_is_written(
    capsys, monkeypatch, compiled, tmp_path
):
    compiled.faults = ["one failed"]
    monkeypatch.setattr(compile, "measure", lambda *_, **__: compiled)
    file = tmp_path / "result.json"
    assert main(["bench", "compile", "--json", str(file)]) == 1
    assert json.loads(file.read_text())["faults"] == ["one failed"]
    assert "  one failed" in capsys.readouterr().out
    compiled.faults = []
    assert main(["bench", "compile", "--json", str(file)]) == 0


@pytest.mark.parametrize("what", ["pool", "compile"])
def test_more_processes_than_memory_has_room_for(capsys, monkeypatch, what):
    cost = policy.CPU_COST
    room = resources.Memory(2**50, 0, 2 * (cost.sidecar + 3 * cost.worker), "a test")
    monkeypatch.setattr(policy, "memory_budget", lambda: room)
    monkeypatch.setattr(policy, "gpu_count", lambda *_, **__: Gpus(0, "a test"))
    said = refused(capsys, what, "--processes", "2,4")
    assert "--processes: '4' is not allowed here: room for 3 workers in " in said


def test_who_reads_may_go_while_it_measures():
    """As `| head -1` does: what is measured is to be written all the same."""
    code = (
        "import sys; from pytest_compilepool.cli.bench_asked import say; sys.stdin.read(); say('a'); say('b'); "
        "print('written', file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == b"written\n"
    assert child.returncode == 0
