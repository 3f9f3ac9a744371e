# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench` itself: real pools, real compiles for a GPU that is not here, and nothing left of them."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import psutil
import pytest
from bench_command import COMMAND, outer

pytest.importorskip("triton", reason="compiles kernels")


@pytest.mark.slow
def test_compiles(offline_here, pool_here, bench, tmp_path):
    """One run, looked at from all sides: it takes half a minute."""
    file = tmp_path / "result.json"
    asked = ("--workload", "kernels,model", "--kernels", "4", "--processes", "1,2", "--runs", "1")
    done = bench("compile", *asked, "--json", str(file), tmp=tmp_path / "tmp")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text())
    found = {(one["workload"], one["processes"]): one for one in told["samples"]}
    for workload, fewest in (("kernels", 4), ("model", 15)):
        one, two = found[workload, 1], found[workload, 2]
        check_who_compiled(one, two, fewest)
        check_what_came_before(one["figures"], two["figures"])
    for processes in (1, 2):
        check_where_the_time_went(found["model", processes])
    again = bench("compile", "--from", str(file), tmp=tmp_path / "tmp")
    assert again.returncode == 0, again.stderr
    assert done.stdout.endswith(again.stdout)
    assert "total against the larger bound" in again.stdout


def check_who_compiled(one: dict, two: dict, fewest: int) -> None:
    """Every kernel went through the pool, and none without one."""
    assert one["figures"]["kernels"] == two["figures"]["kernels"] >= fewest
    assert one["figures"]["through"] == 0
    assert two["figures"]["through"] == two["figures"]["kernels"]
    here = {kernel["pid"] for kernel in one["detail"]["kernels"]}
    workers = {kernel["pid"] for kernel in two["detail"]["kernels"]}
    assert len(here) == 1
    assert len(workers) == two["figures"]["workers"] >= 1
    assert not here & workers
    assert 0 < two["figures"]["longest"] <= two["figures"]["total"]


def check_what_came_before(one: dict, two: dict) -> None:
    """What is over before the clock starts is told by itself."""
    assert "ready" not in one
    assert one["first"] > 0
    assert "first" not in two
    assert two["ready"] > 0
    assert "primed" in two


def check_where_the_time_went(sample: dict) -> None:
    """It adds up."""
    figures = sample["figures"]
    parts = [figures[name] for name in ("dynamo", "autograd", "inductor", "triton", "wait", "other")]
    assert sum(parts) == pytest.approx(figures["total"], rel=0.05)
    assert figures["inductor"] > 0
    assert sample["detail"]["phases"]["compile_fx_inner"] > 0


@pytest.mark.slow
def test_what_a_pool_costs(offline_here, pool_here, bench, tmp_path):
    file = tmp_path / "result.json"
    asked = ("--processes", "2", "--runs", "1", "--idle", "0", "--prime", "yes", "--json", str(file))
    done = bench("pool", *asked, tmp=tmp_path / "tmp")
    assert done.returncode == 0, done.stdout + done.stderr
    (sample,) = json.loads(file.read_text())["samples"]
    assert sample["primed"] is True
    for name in (
        "ready_s",
        "primed_s",
        "first_kernel_s",
        "workers_gone_s",
        "recycle_s",
        "shutdown_s",
        "worker_uss_mb",
    ):
        assert sample["figures"][name] > 0
    assert "sidecar_cpu_after_quiesce_s" not in sample["figures"]
    assert "primed after that" in done.stdout


def test_a_run_that_takes_too_long_is_ended_and_is_a_fault(pool_here, bench, tmp_path):
    asked = ("--processes", "2", "--runs", "1", "--idle", "0", "--limit", "1")
    done = bench("pool", *asked, tmp=tmp_path / "tmp")
    assert done.returncode == 1
    assert (
        "round 1, 2 processes: the fresh interpreter was still at it after 1 s and was ended" in done.stdout
    )
    assert "nothing was measured" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_leaves_nothing(pool_here, tmp_path):
    asked = ("compile", "--workload", "kernels", "--processes", "2", "--runs", "1")
    tmp = tmp_path / "tmp"
    command = subprocess.Popen(
        [*COMMAND, *asked, "--json", str(tmp_path / "result.json")],
        env=outer(tmp),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        below: list[psutil.Process] = []
        until = time.monotonic() + 60
        while time.monotonic() < until and not any(is_sidecar(process) for process in below):
            below = psutil.Process(command.pid).children(recursive=True)
            time.sleep(0.05)
        assert any(is_sidecar(process) for process in below)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
    finally:
        command.kill()
    assert command.returncode == 2
    assert said == "compilepool bench: interrupted\n"
    _, alive = psutil.wait_procs(below, timeout=5)
    assert alive == []
    assert list(tmp.iterdir()) == []
    assert not (tmp_path / "result.json").exists()


def is_sidecar(process: psutil.Process) -> bool:
    try:
        return any("compile_worker" in part for part in process.cmdline())
    except psutil.Error:
        return False
