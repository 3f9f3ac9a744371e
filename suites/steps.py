# SPDX-License-Identifier: Apache-2.0
"""Steps that scenarios of several groups take."""

from __future__ import annotations

import signal
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.conformance.bench import BOUND, Bench, check
from pytest_compilepool.workloads import jobs

LONG = 50.0
"""Seconds of a job that is not meant to come to its end: longer than any bound."""


def all_serve(bench: Bench, name: str, processes: int = 2) -> set[int]:
    """So many jobs run at the same time, each in a process of its own: the pool is whole. name: of the files; the pids."""
    futures = [
        bench.submit(jobs.touch_and_wait_for, bench.file(f"{name}{number}"), bench.file(f"{name}-go"), 30)
        for number in range(processes)
    ]
    deadline = time.monotonic() + BOUND
    for number, future in enumerate(futures):
        path = Path(bench.file(f"{name}{number}"))
        while not path.exists() and not future.done():
            began = sum(Path(bench.file(f"{name}{other}")).exists() for other in range(processes))
            text = f"of {processes} jobs that wait for each other only {began} began within {BOUND:g} s"
            check(time.monotonic() < deadline, f"{text}; live workers: {len(bench.workers())}")
            time.sleep(0.005)
    jobs.touch(bench.file(f"{name}-go"))
    pids = {bench.answer(future, BOUND, f"one of {processes} jobs at the same time") for future in futures}
    check(len(pids) == processes, f"{processes} jobs that wait for each other ran in {len(pids)} processes")
    # Where one has died, another of those before may still be on its way out.
    deadline = time.monotonic() + BOUND
    while (live := len(bench.workers())) > processes:
        check(time.monotonic() < deadline, f"a pool of {processes} has {live} live workers after {BOUND:g} s")
        time.sleep(0.005)
    return pids


def busy(bench: Bench, running: int = 1, queued: int = 0) -> list[tuple[str, Future[Any]]]:
    """Jobs that run, and jobs that wait behind them, for a test that ends them. Returns (what it is, future)."""
    sent: list[tuple[str, Future[Any]]] = []
    for number in range(running):
        future = bench.submit(jobs.sleep_after_touch, bench.file(f"busy{number}"), LONG)
        sent.append((f"running job {number + 1} of {running}", future))
    for number in range(running):
        bench.appears(f"busy{number}")
    for number in range(queued):
        sent.append((f"queued job {number + 1} of {queued}", bench.submit(jobs.add, 1, 1)))
    return sent


def end_sidecar(bench: Bench, number: int = signal.SIGKILL) -> int:
    """Send the sidecar that signal and wait until it has ended. Returns its pid."""
    pid = bench.sidecar
    row = proctree.lookup(pid)
    check(row is not None and not row.dead, f"the sidecar (pid {pid}) had ended before it was sent a signal")
    assert row is not None
    bench.kill(pid, number)
    bench.gone([row.key], BOUND, f"the sidecar after {signal.Signals(number).name}")
    return pid
