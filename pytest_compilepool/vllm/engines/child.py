# SPDX-License-Identifier: Apache-2.0
"""The interpreter that starts engines: reads its order, does it, writes down what it saw, and is gone."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree, torch_compat, vllm_compat
from pytest_compilepool.capture import CaptureGuard
from pytest_compilepool.fresh.ending import die_with
from pytest_compilepool.torch_compat.clock import CompileClock, phases
from pytest_compilepool.vllm.engines import census, cpu, defaults, extension, log, shared
from pytest_compilepool.vllm.engines.order import (
    ANSWER,
    GATE_SECONDS,
    LOG,
    ORDER,
    PROMPTS,
    SHUTDOWN_SECONDS,
    STACKS,
    Engine,
    EngineFailed,
    Order,
    Run,
)
from pytest_compilepool.vllm.plugin import ATTRIBUTE

# Named as a module or, in other releases of torch, by its file.
_SIDECAR = "compile_worker"


class Child:
    """What functions of `Order.prepare` are given. order, folder: its own; wrapper: vLLM's around the worker, once there
    is one in this process; run: what is told in the end."""

    def __init__(self, order: Order, folder: Path, watch: Callable[[], None]) -> None:
        self.watch = watch  # begins its limit anew
        self.order, self.folder = order, folder
        self.run = Run(pid=os.getpid())
        self.clock = CompileClock()
        self.asked: list[Callable[[], None]] = []  # called as if an engine's first request compiled it
        self.serving: list[Callable[[], None]] = []  # called while an engine serves
        self.between: list[Callable[[], None]] = []  # called between two engines
        self.killed: dict[str, Any] = {}

    # -- the whole -----------------------------------------------------------------------------------

    def do(self) -> None:
        """All of it. What vLLM raises is told."""
        try:
            self._prepare()
            for number in range(self.order.engines):
                for act in self.between if number else ():
                    act()
                self._one()
        except BaseException as error:
            self.run.error = f"{type(error).__name__}: {error}"
            import traceback

            traceback.print_exc()
        self.run.census = census.take()
        self.run.census |= {"children": _commands(os.getpid()), **self.killed}

    def _prepare(self) -> None:
        began = time.monotonic()
        importlib.import_module("torch")
        vllm = importlib.import_module("vllm")
        self._llm, self._sampling = vllm.LLM, vllm.SamplingParams
        self.run.seconds["import"] = round(time.monotonic() - began, 3)
        if self.order.gate:
            _take_turn(Path(self.order.gate))
            self.watch()
        self.on_cpu = cpu.is_cpu()
        self.run.versions = _versions(self.on_cpu)
        self.clock.start()
        extension.prepare(self, self.order.prepare)
        os.environ[extension.VARIABLE] = json.dumps(self.order.prepare)

    def _one(self) -> None:
        engine = Engine()
        before = _counters()
        phases_before = phases()
        clock_before = self.clock.read()
        size = (self.folder / LOG).stat().st_size
        with CaptureGuard() as guard:
            began = time.monotonic()
            llm = self._llm(**self._arguments())
            engine.seconds["init"] = round(time.monotonic() - began, 3)
        self.run.engines.append(engine)
        shared.note(self.folder)
        engine.captures = {
            "all": len(guard.captures),
            "not quiesced": sum(not one.quiesced for one in guard.captures),
        }
        engine.clock = {
            name: round(value - clock_before[name], 4) for name, value in self.clock.read().items()
        }
        engine.phases = {
            name: round(value - phases_before.get(name, 0.0), 4) for name, value in phases().items()
        }
        engine.counters = {
            name: value - before.get(name, 0)
            for name, value in _counters().items()
            if value != before.get(name, 0)
        }
        config = llm.llm_engine.vllm_config
        engine.blocks = config.cache_config.num_gpu_blocks
        self._see_pool(engine, llm)
        self._generate(engine, llm)
        for act in self.serving:
            act()
        if self.killed:
            return
        began = time.monotonic()
        _shut_down(llm.llm_engine.engine_core)
        engine.seconds["shutdown"] = round(time.monotonic() - began, 3)
        del llm
        gc.collect()
        engine.left = [pid for pid, _ in _pool_processes()]
        sys.stdout.flush()
        sys.stderr.flush()
        with open(self.folder / LOG, encoding="utf-8", errors="replace") as file:
            file.seek(size)
            engine.logged = log.seconds(file.read())

    def _arguments(self) -> dict[str, Any]:
        # Imported by workers in other processes, which are to be prepared too.
        extended = {"worker_extension_cls": f"{extension.__name__}.Extension", **self.order.engine}
        return defaults.arguments(self.order.model, self.on_cpu, extended)

    def kill_engine(self, within: float) -> None:
        """SIGKILL to the process that the sidecar belongs to; notes how long its pool was there after that.

        within: seconds that it is given.
        """
        rows = proctree.table()
        pids = [pid for pid, is_sidecar in _pool_processes() if is_sidecar]
        owners = {rows[pid].parent for pid in pids if pid in rows} - {os.getpid()}
        pool = [rows[pid].key for pid, _ in _pool_processes() if pid in rows]
        began = time.monotonic()
        for pid in owners:
            os.kill(pid, signal.SIGKILL)
        left = proctree.wait_gone(pool, within)
        self.killed = {
            "killed": sorted(owners),
            "killed sidecars": pids,
            "gone after": round(time.monotonic() - began, 3),
            "left of the killed": [" ".join(proctree.command(key.pid)) for key in left],
        }

    # -- a running engine --------------------------------------------------------------------------------

    def _generate(self, engine: Engine, llm: Any) -> None:
        if not self.order.tokens:
            return
        for act in self.asked:
            act()
        began = time.monotonic()
        outputs = self._ask(llm, self.order.tokens)
        engine.seconds["generate"] = round(time.monotonic() - began, 3)
        engine.tokens = [list(one.outputs[0].token_ids) for one in outputs]
        engine.logprobs = [
            [step[token].logprob for step, token in zip(one.outputs[0].logprobs, tokens, strict=True)]
            for one, tokens in zip(outputs, engine.tokens, strict=True)
            if one.outputs[0].logprobs is not None
        ]
        found = _pool_processes()
        engine.pool = {
            "sidecars": [pid for pid, is_sidecar in found if is_sidecar],
            "workers": [pid for pid, is_sidecar in found if not is_sidecar],
        }
        lifecycle = self._lifecycle(llm)
        if lifecycle is not None:
            engine.late = {
                where: count - engine.kernels.get(where, 0)
                for where, count in lifecycle.kernels.items()
                if count != engine.kernels.get(where, 0)
            }
        if self.order.watch:
            self._watch(engine, llm, [pid for pid, _ in found])

    def _ask(self, llm: Any, tokens: int) -> list[Any]:
        # vLLM compiles something of its own for logprobs, which takes seconds.
        logprobs = 1 if self.order.logprobs else None
        sampling = self._sampling(
            max_tokens=tokens, temperature=0, detokenize=False, logprobs=logprobs, ignore_eos=True
        )
        prompts = [{"prompt_token_ids": list(prompt)} for prompt in PROMPTS]
        return list(llm.generate(prompts, sampling, use_tqdm=False))

    def _watch(self, engine: Engine, llm: Any, pids: list[int]) -> None:
        before = {pid: proctree.cpu_seconds(pid) for pid in pids}
        began = time.monotonic()
        while time.monotonic() < began + self.order.watch:
            self._ask(llm, 32)
        engine.watched = round(time.monotonic() - began, 3)
        for pid, was in before.items():
            now = proctree.cpu_seconds(pid)
            # One that has ended meanwhile has not idled.
            engine.cpu[str(pid)] = -1.0 if was is None or now is None else round(now - was, 3)

    def _see_pool(self, engine: Engine, llm: Any) -> None:
        """What the lifecycle of the worker knows, where that worker is in this process."""
        lifecycle = self._lifecycle(llm)
        if lifecycle is not None:
            engine.kernels = lifecycle.kernels
            engine.jobs = [asdict(job) for job in lifecycle.pool.job_records]

    def _lifecycle(self, llm: Any) -> Any:
        core = getattr(llm.llm_engine.engine_core, "engine_core", None)
        executor = getattr(core, "model_executor", None)
        worker = getattr(getattr(executor, "driver_worker", None), "worker", None)
        return getattr(worker, ATTRIBUTE, None)


def _shut_down(core: Any) -> None:
    """In its own time. An older vLLM takes no limit: it has one for engines in other processes only."""
    if "timeout" in inspect.signature(core.shutdown).parameters:
        core.shutdown(timeout=SHUTDOWN_SECONDS)
    else:
        core.shutdown()


def _take_turn(gate: Path) -> None:
    """Until somebody makes that file. Whoever asked for this process ends it where that never comes."""
    gate.with_name(f"{gate.name}.ready").touch()
    while not gate.exists():
        time.sleep(0.02)


def _pool_processes() -> list[tuple[int, bool]]:
    """Pids of pools below this process, and whether each is a sidecar."""
    rows = [row for row in proctree.descendants(os.getpid()) if not row.dead]
    found = {row.pid: row.parent for row in rows if _SIDECAR in " ".join(proctree.command(row.pid))}
    return [(pid, parent not in found) for pid, parent in found.items()]


def _commands(pid: int) -> list[str]:
    return [" ".join(proctree.command(row.pid))[:200] for row in proctree.descendants(pid) if not row.dead]


def _counters() -> dict[str, int]:
    moved = {f"vllm.{name}": value for name, value in vllm_compat.compilation_counter().items()}
    for name, value in (torch_compat.counters_snapshot() or {}).items():
        if name.startswith(("aot_autograd.", "inductor.")) and isinstance(value, int):
            moved[name] = value
    return moved


def _versions(on_cpu: bool) -> dict[str, str]:
    names = {name: torch_compat.installed_version(name) or "-" for name in ("torch", "triton")}
    device = "cpu"
    if not on_cpu:
        platform = importlib.import_module("vllm.platforms").current_platform
        device = str(platform.get_device_name())
    return {"vllm": vllm_compat.vllm_version() or "-", **names, "device": device}


def main(folder: str, parent: int) -> None:
    """Do what the order in that folder says. parent: pid of who has asked."""
    die_with(parent)
    place = Path(folder)
    told = json.loads((place / ORDER).read_text(encoding="utf-8"))
    names = {one.name for one in fields(Order)}
    order = Order(**{name: value for name, value in told.items() if name in names})
    stacks = open(place / STACKS, "w", encoding="utf-8")  # noqa: SIM115 (open until the end)

    def watch(more: float = 0.0) -> None:
        faulthandler.dump_traceback_later(order.limit + more, exit=True, file=stacks)

    watch(GATE_SECONDS if order.gate else 0.0)
    child = Child(order, place, watch)
    child.do()
    part = place / f"{ANSWER}.part"
    part.write_text(json.dumps(asdict(child.run), default=str), encoding="utf-8")
    part.replace(place / ANSWER)


__all__ = ["Child", "EngineFailed", "main"]
