# SPDX-License-Identifier: Apache-2.0
"""One start of the stand-in's worker, in an interpreter of its own; says what was seen, as JSON, in `said.json`.

python drive.py FOLDER JSON: the folder it may write to; what is to happen:
{"compiles": {phase: [programs]}, "faults": {phase: name}, "config": {...}, "register": true, "end": true}
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.targets import TARGETS

WITHIN = 20.0  # seconds in which what a fault has done must be seen


class Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname}: {record.getMessage()}")


class Drive:
    def __init__(self, folder: Path, order: dict[str, Any]) -> None:
        from pytest_compilepool.torch_compat.offline import OfflineGpu

        self.folder, self.order = folder, order
        self.seen: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.asked: Any = None
        self.messages = Messages()
        logging.getLogger("vllm").addHandler(self.messages)
        logging.getLogger("vllm").setLevel(logging.INFO)
        self.gpu = OfflineGpu(TARGETS["cuda:90"])
        self.gpu.install()
        import torch._inductor.config as inductor

        # As vLLM does when it is imported.
        inductor.compile_threads = 1
        self.inductor = inductor
        self.methods = self.torch_methods()
        self.wrapper: Any = None

    def torch_methods(self) -> dict[str, int]:
        from torch._inductor.async_compile import AsyncCompile

        names = ("wakeup", "use_process_pool", "triton")
        return {name: id(AsyncCompile.__dict__[name]) for name in names}

    def does(self, phase: str) -> None:
        """What the worker does in a phase of its life."""
        self.seen.append({"phase": phase, "tree": self.tree(), "threads": self.inductor.compile_threads})
        fault = self.order.get("faults", {}).get(phase)
        if fault is not None:
            getattr(self, fault)()
        programs = self.order.get("compiles", {}).get(phase, [])
        if programs:
            from pytest_compilepool.workloads import torch_programs

            try:
                with self.gpu.tensors():
                    torch_programs.run_all(programs)
                self.save()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    def save(self) -> None:
        """As vLLM does after a compile, if it is to: an artifact in its folder, and a counter."""
        from vllm.compilation.counter import compilation_counter

        number = self.order.get("saves", 0)
        compilation_counter.num_compiled_artifacts_saved += number
        if number:
            artifact = Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache", "key", "rank_0_0")
            artifact.mkdir(parents=True, exist_ok=True)

    def tree(self) -> list[int]:
        return [row.pid for row in proctree.descendants(os.getpid(), proctree.table()) if not row.dead]

    # -- faults --------------------------------------------------------------------------------------

    @property
    def lifecycle(self) -> Any:
        return self.wrapper.worker.compile_pool

    def kill_sidecar(self) -> None:
        key = self.lifecycle.pool.sidecar
        os.kill(key.pid, signal.SIGKILL)
        proctree.wait_gone([key], WITHIN)

    def kill_sidecar_with_a_job(self) -> None:
        """Its first job is stopped in the worker, then the sidecar dies, while the kernel is waited for."""
        from pytest_compilepool.torch_compat import memoised_pool

        pool = memoised_pool()
        submit, sidecar = pool.submit, self.lifecycle.pool.sidecar

        def submitted(*args: Any, **named: Any) -> Any:
            for key in self.lifecycle.pool.workers:
                os.kill(key.pid, signal.SIGSTOP)
            future = submit(*args, **named)
            os.kill(sidecar.pid, signal.SIGKILL)
            return future

        pool.submit = submitted

    def stop_workers(self) -> None:
        """The workers are there and do nothing any more."""
        self.lifecycle.pool.wait_ready()
        for key in self.lifecycle.pool.workers:
            os.kill(key.pid, signal.SIGSTOP)

    def take_memory(self) -> None:
        """The sidecar was started; it can get no memory from here on."""
        resource.prlimit(self.lifecycle.pool.sidecar.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))

    def begin_a_compile(self) -> None:
        """One that has no kernel in the end; how often the sidecar is told to wake its workers."""
        from torch._inductor.async_compile import AsyncCompile

        pool = self.lifecycle.pool.torch_pool
        wakeup, told = pool.wakeup, []
        pool.wakeup = lambda: told.append(wakeup())
        AsyncCompile.wakeup()
        del pool.wakeup
        self.asked = len(told)

    def ask_a_worker(self) -> None:
        from pytest_compilepool.workloads import primed

        self.asked = self.lifecycle.pool.submit(primed.where).result(WITHIN)

    # -- the whole -----------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        from vllm.v1.worker.worker_base import WorkerWrapperBase, config

        before = id(WorkerWrapperBase.init_device)
        if self.order.get("register", True):
            from importlib.metadata import EntryPoint

            entry = EntryPoint("compilepool", self.order["entry"], "vllm.general_plugins")
            entry.load()()
        returned = []
        for _ in range(self.order.get("starts", 1)):
            self.wrapper = WorkerWrapperBase(config(**self.order.get("config", {})), self.does)
            returned.append(self.wrapper.init_device())
            worker = self.wrapper.worker
            attributes = sorted({*vars(worker), *vars(worker.model_runner)})
            worker.load_model(load_dummy_weights=True)
            returned.append(worker.determine_available_memory())
            returned.append(worker.compile_or_warm_up_model())
            self.does("serving")
            lifecycle = getattr(worker, "compile_pool", None)
            if self.order.get("end", True):
                worker.shutdown()
        return {
            "seen": self.seen,
            "returned": returned,
            "attributes": attributes,
            "errors": self.errors,
            "asked": self.asked,
            "messages": self.messages.texts,
            "launched": self.gpu.launches,
            "kernels": None if lifecycle is None else lifecycle.kernels,
            "jobs": [] if lifecycle is None else [asdict(job) for job in lifecycle.pool.job_records],
            "events": [] if lifecycle is None else [asdict(event) for event in lifecycle.events.events()],
            "left": self.tree(),
            "threads": self.inductor.compile_threads,
            "torch as it was": self.torch_methods() == self.methods,
            "vllm as it was": id(WorkerWrapperBase.init_device) == before,
            "imported": sorted(name for name in sys.modules if name.startswith("pytest_compilepool.vllm.")),
        }


def main() -> None:
    folder, order = Path(sys.argv[1]), json.loads(sys.argv[2])
    began = time.monotonic()
    said = Drive(folder, order).run()
    said["seconds"] = time.monotonic() - began
    (folder / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
