# SPDX-License-Identifier: Apache-2.0
"""What runs in the fresh interpreter of a measurement: the pool, if there is one, is ready when it is called."""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_compilepool.bench import workloads
from pytest_compilepool.measure import measure_pool
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.torch_compat import memoised_pool, pools
from pytest_compilepool.torch_compat.clock import CompileClock, phases
from pytest_compilepool.torch_compat.probe import inductor


def nothing(file: str) -> None:
    """All of an interpreter but what is measured in it: torch is imported when it is called. file: gets an empty object."""
    _write(file, {})


def pool(file: str, *, processes: int, target: str, primed: bool, idle: float, limit: float) -> None:
    """Measure what a pool costs. file: gets the figures of `measure_pool`."""
    _write(
        file,
        measure_pool(
            processes,
            ready_timeout=limit,
            idle_seconds=idle,
            prime=target if primed else "",
            kernel_for=target,
        ),
    )


def gpu(file: str) -> None:
    """Which GPU is here. file: gets its name, and the target as Triton takes it, empty texts where there is none."""
    import torch

    told = {"device": "", "target": ""}
    if torch.cuda.is_available():
        seen = torch.cuda.get_device_properties(0)
        backend, arch = "cuda", str(seen.major * 10 + seen.minor)
        if torch.version.hip:
            backend, arch = "hip", str(seen.gcnArchName).partition(":")[0]
        told = {
            "device": torch.cuda.get_device_name(0),
            "target": f"{backend}:{arch}:{getattr(seen, 'warp_size', 32)}",
        }
    _write(file, told)


def kernels(file: str, *, count: int, target: str, primed: bool, limit: float) -> None:
    """Compile raw kernels: as jobs of the pool, or without one in this process, one after the other.

    target: as Triton takes it; primed: whether this process, where it compiles, is to have its first compile behind
    it; limit: seconds for the pool. file: gets `total`, and `kernels`, one object each.
    """
    from pytest_compilepool.workloads import triton_kernels

    importlib.import_module("triton.compiler")
    triple = workloads.as_triton(target)
    todo = workloads.plan(count, triton_kernels.KERNELS)
    owner = _owner()
    told: dict[str, Any] = {}
    if owner is None:
        told["first"] = _first_compile(target, f"{file}.first") if primed else None
    began = time.monotonic()
    made = []
    if owner is None:
        made = [triton_kernels.compile_kernel(name, triple, None, warps) for name, warps in todo]
    else:
        jobs = [
            owner.submit(triton_kernels.compile_kernel, name, triple, None, warps) for name, warps in todo
        ]
        made = [job.result(limit) for job in jobs]
    told["total"] = time.monotonic() - began
    told["kernels"] = [
        {
            "kernel": f"{one['kernel']}, {one['num_warps']} warps",
            "seconds": one["seconds"],
            "pid": one["pid"],
            "cached": one["cached"],
        }
        for one in made
    ]
    _write(file, told)


def model(file: str, *, workload: str, target: str, offline: bool, primed: bool) -> None:
    """Compile and run a torch.compile workload. offline: whether the GPU is a stub, on which nothing runs; the rest as in
    `kernels`. file: gets `total`, `clock` (of `CompileClock`), `each` (seconds of each kernel that was compiled
    here) and `phases`, torch's own account."""
    import torch

    # Both sides have this behind them: what is measured is compiling, not importing.
    inductor("compile_fx")
    importlib.import_module("triton.compiler.code_generator")
    if not offline:
        _start_driver()
    told: dict[str, Any] = {}
    if _owner() is None:
        told["first"] = _first_compile(target, f"{file}.first") if primed else None
    calls = _calls(workload, offline)
    clock = CompileClock()
    clock.start()
    told |= {"total": 0.0, "phases": {}}
    for call in calls:
        # Between two programs torch forgets what it has compiled, and its account with it.
        torch.compiler.reset()
        before = phases()
        began = time.monotonic()
        call()
        if not offline:
            torch.cuda.synchronize()
        told["total"] += time.monotonic() - began
        for name, took in phases().items():
            told["phases"][name] = told["phases"].get(name, 0.0) + took - before.get(name, 0.0)
    told |= {"clock": clock.read(), "each": clock.each}
    _write(file, told)


def _calls(workload: str, offline: bool) -> list[Callable[[], Any]]:
    """What is called, one after the other; the inputs of a model are already made."""
    import torch

    from pytest_compilepool.workloads import torch_programs

    if workload == "programs":
        return [functools.partial(torch_programs.run_compiled, name) for name in torch_programs.PROGRAMS]
    compiled, inputs = torch.compile(torch_programs.twelve_blocks), torch_programs.block_inputs()
    if not offline:
        torch_programs.twelve_blocks(*inputs)  # what a GPU loads for its first products is no compile
    return [lambda: compiled(*inputs)]


def _owner() -> CompilePool | None:
    """The pool that was made ready for this, if one was."""
    found = getattr(memoised_pool(), pools.OWNER, None)
    return found if isinstance(found, CompilePool) else None


def _first_compile(target: str, folder: str) -> float:
    """Have Triton's first compile over in this process, as primed workers have. Returns seconds.

    folder: for Triton's cache, in which nobody looks afterwards.
    """
    from pytest_compilepool.workloads import primed

    began = time.monotonic()
    primed.compile_first(target, folder)
    return time.monotonic() - began


def _start_driver() -> None:
    """Triton builds a module of C for the GPU that is here: once a machine, as a rule, but these caches are empty."""
    driver: Any = importlib.import_module("triton.runtime.driver").driver
    driver.active.get_current_target()


def _write(file: str, told: dict[str, Any]) -> None:
    Path(file).write_text(json.dumps(told), encoding="utf-8")
