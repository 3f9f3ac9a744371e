# SPDX-License-Identifier: Apache-2.0
"""What an interpreter with an engine is to go through besides: kernels on a machine without a GPU, and faults.

Named in `Order.prepare`; each gets the child, before the first engine is made. They act when the lifecycle says that it has
come somewhere, in the thread in which that happens.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.torch_compat.probe import inductor
from pytest_compilepool.vllm import events, plugin
from pytest_compilepool.vllm.lifecycle import Lifecycle

PROGRAMS = ("pointwise", "softmax", "cumulative_sum")
LATE = ("layer_norm", "masked")
TARGET = "cuda:90"
WITHIN = 20.0
"""Seconds in which what a fault has done must be seen."""


def kernels(child: Any) -> None:
    """Have the worker compile Triton kernels when its model is loaded, for a GPU that is not there.

    On a CPU machine vLLM's own kernels are C++, and none of them goes to a pool of processes.
    """
    if child.on_cpu:
        from pytest_compilepool.workloads import torch_programs

        when("loaded", lambda lifecycle: _offline(lambda: torch_programs.run_all(PROGRAMS)))


def late_kernels(child: Any) -> None:
    """Compile more of them while the engine serves, as a request does that wants something for the first time."""
    from pytest_compilepool.workloads import torch_programs

    def compile_each() -> None:
        # Not `run_all`: that resets Dynamo, and with it what the engine has compiled.
        for name in LATE:
            torch_programs.run_compiled(name)

    child.asked.append(lambda: _offline(compile_each) if child.on_cpu else compile_each())


def fresh_caches_for_each_engine(child: Any) -> None:
    """Each engine after the first has empty caches of its own, as where another test had run before it."""
    from pytest_compilepool import torch_compat, vllm_compat

    names = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ[name] for name in names}

    def fresh() -> None:
        folder = child.folder / "another"
        for name, old in before.items():
            os.environ[name] = str(folder / os.path.basename(old))
            os.makedirs(os.environ[name], exist_ok=True)
        root = os.environ["VLLM_CACHE_ROOT"]
        os.symlink(os.path.join(before["VLLM_CACHE_ROOT"], "modelinfos"), os.path.join(root, "modelinfos"))
        torch_compat.settings.clear_memory_caches()
        vllm_compat.forget_environment()

    child.between.append(fresh)


def kill_engine_when_serving(child: Any) -> None:
    """SIGKILL to the process of the engine; what is left of its pool is looked for from outside."""
    child.serving.append(lambda: child.kill_engine(WITHIN / 2))


def kill_sidecar_when_loaded(child: Any) -> None:
    """It is gone when the first kernel comes."""

    def kill(lifecycle: Lifecycle) -> None:
        key = lifecycle.pool.sidecar
        assert key is not None
        os.kill(key.pid, signal.SIGKILL)
        proctree.wait_gone([key], WITHIN)

    when("loaded", kill)


def kill_sidecar_with_a_job(child: Any) -> None:
    """It dies in the middle of a compile: its first job is with a worker that has been stopped."""

    def plant(lifecycle: Lifecycle) -> None:
        pool = lifecycle.pool.torch_pool
        submit, sidecar = pool.submit, lifecycle.pool.sidecar
        assert sidecar is not None

        def submitted(*args: Any, **named: Any) -> Any:
            for key in lifecycle.pool.workers:
                os.kill(key.pid, signal.SIGSTOP)
            future = submit(*args, **named)
            os.kill(sidecar.pid, signal.SIGKILL)
            return future

        pool.submit = submitted

    when("ready", plant)


def no_memory_for_the_sidecar(child: Any) -> None:
    """It was started, and can get no more memory from then on."""

    def limit(lifecycle: Lifecycle) -> None:
        key = lifecycle.pool.sidecar
        assert key is not None
        resource.prlimit(key.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))

    when("warm", limit)


def sidecar_cannot_start(child: Any) -> None:
    """Its interpreter ends before it has imported anything."""
    subproc_pool = inductor("compile_worker.subproc_pool")
    popen = subproc_pool.subprocess.Popen

    def failing(command: Any, *args: Any, **named: Any) -> Any:
        if "compile_worker" in " ".join(map(str, command)):
            command = [command[0], "-c", "import sys; sys.exit(3)"]
        return popen(command, *args, **named)

    subproc_pool.subprocess.Popen = failing


def no_quiesce(child: Any) -> None:
    """A torch without it, such as 2.8."""
    del inductor("compile_worker.subproc_pool").SubprocPool.quiesce


def when(what: str, act: Callable[[Lifecycle], object]) -> None:
    """Call that once, at the first event of this name, with the lifecycle of the worker."""
    done: list[events.VllmEvent] = []

    def listener(event: events.VllmEvent) -> None:
        lifecycle = plugin.current()
        if event.what == what and not done and lifecycle is not None:
            done.append(event)
            act(lifecycle)

    events.LISTENERS.append(listener)


def _offline(compile_them: Callable[[], object]) -> None:
    """Call that with a GPU that is not there: kernels are compiled, and not run."""
    from pytest_compilepool.targets import TARGETS
    from pytest_compilepool.torch_compat.offline import OfflineGpu

    gpu = OfflineGpu(TARGETS[TARGET])
    gpu.install()
    try:
        with gpu.tensors():
            compile_them()
    finally:
        gpu.undo()
