# SPDX-License-Identifier: Apache-2.0
"""Other ways to start workers: children of the process itself, without a sidecar."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pytest_compilepool.conformance.bench import BOUND, READY, Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.workloads import jobs


@feature("start.fork")
def test_fork(bench: Bench) -> None:
    _serves(bench, "fork")


@feature("start.spawn")
def test_spawn(bench: Bench) -> None:
    _serves(bench, "spawn")


def _serves(bench: Bench, start_method: str) -> None:
    bench.requirements.start_method = start_method
    bench.ready(2)
    names = ("started0", "started1")
    futures = [
        bench.submit(jobs.touch_and_wait_for, bench.file(name), bench.file("go"), READY) for name in names
    ]
    pids = {int(bench.appears(name, READY)) for name in names}
    jobs.touch(bench.file("go"))
    check({bench.answer(future) for future in futures} == pids, "a job has not answered from where it began")
    check(len(pids) == 2, f"two jobs that wait for each other ran in {len(pids)} process")
    check(os.getpid() not in pids, "a job ran in the process that sent it")
    error = bench.error(bench.submit(jobs.fail, "planted: the job fails"))
    check(
        "planted: the job fails" in str(error), f"the error does not have the text of the job's own: {error}"
    )
    bench.second_job()
    processes = [key for key in bench.tree() if not _tracker(key)]
    check(pids <= {key.pid for key in processes}, "the workers have not lived on")
    bench.requirements.shutdown(bench.pool)
    bench.gone(processes, BOUND, f"a pool of workers by {start_method} that was shut down")


def _tracker(key: ProcessKey) -> bool:
    """Whether it is multiprocessing's own, which ends with the interpreter."""
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{key.pid}/cmdline").read_bytes()
    return False
