# SPDX-License-Identifier: Apache-2.0
"""The pool beside a real GPU: what its processes hold of it, and what a CUDA graph captures while it is at work."""

from __future__ import annotations

import os
from typing import Any

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs

_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")


@feature("gpu.no-device-files")
def test_no_device_files(bench: Bench) -> None:
    bench.ready()
    bench.second_job()
    held = {pid: _device_files(pid) for pid in [bench.sidecar, *(key.pid for key in bench.workers())]}
    files = sorted({file for found in held.values() for file in found})
    check(
        not files,
        f"{sum(map(bool, held.values()))} of {len(held)} processes of the pool hold {', '.join(files)}",
    )


@feature("gpu.no-memory")
def test_no_memory(bench: Bench) -> None:
    import torch

    torch.ones(1, device="cuda")
    torch.cuda.synchronize()
    bench.ready(4)
    before = torch.cuda.mem_get_info()[0]
    futures = [
        bench.submit(jobs.touch_and_wait_for, bench.file(f"at{n}"), bench.file("go"), 60) for n in range(4)
    ]
    for number in range(4):
        bench.appears(f"at{number}")
    taken = before - torch.cuda.mem_get_info()[0]
    jobs.touch(bench.file("go"))
    for future in futures:
        bench.answer(future)
    bench.note(f"free memory of the GPU changed by {-taken / 2**20:.0f} MiB while four workers worked")
    # A context of its own takes some 500 MiB in each process.
    check(
        taken < 200 * 2**20, f"the GPU has {taken / 2**20:.0f} MiB less free memory while four workers work"
    )


@feature("gpu.capture-beside-jobs")
def test_capture_beside_jobs(bench: Bench) -> None:
    import torch

    bench.ready()
    _right_while(bench, torch, lambda: [bench.submit(jobs.sleep_then_add, 0.02, n, n) for n in range(40)])


@feature("gpu.capture-after-quiesce")
def test_capture_after_quiesce(bench: Bench) -> None:
    import torch

    bench.ready()
    bench.second_job()
    before = bench.workers()
    bench.pool.quiesce()
    bench.gone(before, 10, "workers after a quiesce")
    _right_while(bench, torch, list)
    check(not bench.workers(), f"workers appeared during a capture: {bench.workers()}")
    bench.second_job()


@feature("gpu.job-after-capture")
def test_job_after_capture(bench: Bench) -> None:
    import torch

    _right_while(bench, torch, list)
    bench.ready()
    error = bench.error_of(bench.submit(jobs.module_names), what="a job after CUDA was used in the parent")
    check(error is None, f"a job after CUDA was used in the parent ended with {error!r}")
    bench.second_job()


def _device_files(pid: int) -> list[str]:
    found = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
        except OSError:
            continue
    return sorted(path for path in found if path.startswith(_DEVICES))


def _right_while(bench: Bench, torch: Any, begin: Any) -> None:
    """Capture a CUDA graph while what `begin` sends is under way; its replays must be right, and so must the jobs be."""
    x = torch.randn(64, 1024, device="cuda")

    def work(value: Any) -> Any:
        for number in range(4):
            value = torch.softmax(value * (number + 1), -1) + value.sum(-1, keepdim=True)
        return value

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work(x)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    futures = begin()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = work(x)
    for _ in range(3):
        x.copy_(torch.randn(64, 1024, device="cuda"))
        graph.replay()
        torch.cuda.synchronize()
        check(torch.equal(y, work(x)), "a CUDA graph that was captured beside the pool replays wrong")
    wrong = [n for n, future in enumerate(futures) if bench.answer(future, 30) != 2 * n]
    check(not wrong, f"jobs that were under way during a capture gave wrong results: {wrong[:5]}")
