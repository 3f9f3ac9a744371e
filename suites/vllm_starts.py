# SPDX-License-Identifier: Apache-2.0
"""The engine starts that the features about vLLM look at: each is made once a run, whoever asks first.

A start takes 10 to 100 seconds, so features share them. A feature that finds a start under way waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.vllm.engines import models
from pytest_compilepool.vllm.engines.order import Engine, Order, Run
from pytest_compilepool.vllm.engines.start import run

from . import vllm_compiler

MODEL, ENGINE = "COMPILEPOOL_VLLM_MODEL", "COMPILEPOOL_VLLM_ENGINE"
"""Variables: a folder with a `config.json` or a model of this package; arguments of `vllm.LLM`, as a JSON object."""

PREPARE = "pytest_compilepool.suites.vllm_prepare"
LATE = f"{PREPARE}:late_kernels"
LIMIT = 300.0

MODES: dict[str, dict[str, str | None]] = {
    "default": {},
    "no-mega": {"VLLM_USE_MEGA_AOT_ARTIFACT": "0"},
    "no-aot": {"VLLM_USE_AOT_COMPILE": "0"},
    "no-standalone": {"VLLM_USE_STANDALONE_COMPILE": "0", "VLLM_USE_AOT_COMPILE": "0"},
    "no-cache": {"VLLM_DISABLE_COMPILE_CACHE": "1"},
}
"""vLLM's cache modes, by the variables that choose them."""


@dataclass(frozen=True)
class Plan:
    """A start. name: under which it is kept; root: name of its caches, which starts may share; order: what is done, all
    but the model; memory: whether vLLM measures the GPU's memory, so that nobody else may use it meanwhile."""

    name: str
    root: str
    order: Order = field(default_factory=lambda: Order("", limit=LIMIT))
    memory: bool = False


class Starts:
    """Those of one run. Raises AssertionError where a feature belongs to no run."""

    def __init__(self, bench: Bench) -> None:
        check(bench.order.shared, "this scenario was started without a folder that is shared by the run")
        self._bench = bench
        self._folder = Path(bench.order.shared) / "vllm"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.gpu = bool(bench.requirements.vllm_gpu)
        self.processes = str(max(2, min(8, len(os.sched_getaffinity(0)))))

    # -- the usual ones ------------------------------------------------------------------------------

    def cold(self, pool: bool, mode: str = "default") -> Run:
        """Over empty caches. pool: with the lifecycle, or without the variable that asks for it."""
        return self.of(self._plan("cold", pool, mode))

    def warm(self, pool: bool, mode: str = "default") -> Run:
        """The same once more, over what the cold one has left."""
        self.cold(pool, mode)
        return self.of(self._plan("warm", pool, mode))

    def kernels(self) -> Run:
        """A cold start with a pool to which kernels go: on a GPU any, else one that is given some."""
        if self.gpu:
            return self.cold(True)
        order = Order(
            "", self.processes, prepare=(f"{PREPARE}:kernels", LATE), watch=3.0, logprobs=True, limit=LIMIT
        )
        return self.of(Plan("kernels", "kernels", order))

    def where_kernels_are_new(self, name: str) -> str:
        """Root of a start in which kernels are to be compiled, if possible without compiling a model once more.

        On a GPU it is empty: the model's kernels are the ones. Without one it has the model's artifacts, of a start that
        left no note of them; the kernels that a start is given besides are in no cache.
        """
        made = self.root(name)
        if not self.gpu and not made.exists():
            self.cold(pool=False)
            kept = self.root(self._plan("cold", False, "default").root)
            made.mkdir(parents=True)
            shutil.copytree(kept / "torch_compile_cache", made / "torch_compile_cache")
        return name

    def _plan(self, phase: str, pool: bool, mode: str) -> Plan:
        name = f"{mode}-{'pool' if pool else 'alone'}"
        used = self.gpu and pool and phase == "cold" and mode == "default"
        order = Order(
            "",
            self.processes if pool else "",
            environment=MODES[mode],
            prepare=(LATE,) if used else (),
            watch=3.0 if used else 0.0,
            logprobs=mode == "default",
            limit=LIMIT,
        )
        return Plan(f"{name}-{phase}", name, order, memory=mode == "default")

    # -- any -----------------------------------------------------------------------------------------

    def of(self, plan: Plan) -> Run:
        """That one; made now if nobody has made it in this run."""
        kept = self._folder / f"{plan.name}.json"
        with self._locked(f"{plan.name}.lock", fcntl.LOCK_EX):
            if not kept.exists():
                found = self._made(plan)
                part = kept.with_suffix(".part")
                part.write_text(json.dumps(asdict(found)), encoding="utf-8")
                part.replace(kept)
        return Run.from_json(json.loads(kept.read_text(encoding="utf-8")))

    def _made(self, plan: Plan) -> Run:
        order, root = self._filled(plan), self.root(plan.root)
        if not self.gpu:
            with self._slot(plan.name):
                return run(order, root, modelinfos=self._folder / "modelinfos")
        # It imports vLLM first, which takes as long as many a start and touches no GPU.
        # Of its own: who was ended while it made the same has left its gate open.
        gate = self._folder / f"{plan.name}.{os.getpid()}.gate"
        order = replace(order, gate=str(gate))
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(run, order, root, modelinfos=self._folder / "modelinfos")
            ready = gate.with_name(f"{gate.name}.ready")
            while not ready.exists() and not future.done():
                wait([future], 0.05)
            with self._memory(alone=plan.memory), self._slot(plan.name):
                gate.touch()
                return future.result()

    @contextmanager
    def _memory(self, alone: bool) -> Iterator[None]:
        """The GPU: alone, or beside others that measure nothing. Who wants it alone is before all who come later."""
        with contextlib.ExitStack() as stack:
            with self._locked("turnstile.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
                stack.enter_context(self._locked("memory.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
            yield

    def root(self, name: str) -> Path:
        """The caches of that name."""
        return self._folder / "roots" / name if not name.startswith("/") else Path(name)

    def model(self) -> Path:
        """The model, with weights."""
        wanted = os.environ.get(MODEL, "tiny-opt")
        try:
            folder = models.find(wanted, MODEL)
        except ValueError as error:
            raise AssertionError(str(error)) from None
        if any(folder.glob("*.safetensors")):
            return folder
        made = self._folder / "model"
        with self._locked("model.lock", fcntl.LOCK_EX):
            if not made.exists():
                part = self._folder / f"model.{os.getpid()}"
                models.with_weights(folder, part)
                part.rename(made)
        return made

    def _filled(self, plan: Plan) -> Order:
        extra = (
            {}
            if plan.memory or not self.gpu
            else {
                # Several at a time share the GPU: none of them measures what is free.
                "kv_cache_memory_bytes": 1 << 30,
                "gpu_memory_utilization": 0.06,
            }
        )
        engine = {**extra, **_given(), **plan.order.engine}
        model = plan.order.model or str(self.model())
        environment = {**({} if self.gpu else self._compiler()), **plan.order.environment}
        return replace(plan.order, model=model, engine=engine, environment=environment)

    def _compiler(self) -> dict[str, str | None]:
        """What C++ kernels are compiled with: each once a run. They are not the pool's, and take 2 s each."""
        program = self._folder / "c++"
        with self._locked("compiler.lock", fcntl.LOCK_EX):
            if not program.exists():
                found = os.environ.get("CXX", "g++")
                kept = self._folder / "objects"
                part = program.with_suffix(".part")
                words = [sys.executable, "-S", "-E", vllm_compiler.__file__, str(kept), found]
                part.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
                part.chmod(0o755)
                part.replace(program)
        # One thread each: starts that wait for each other's threads take three times as long.
        return {"CXX": str(program), "OMP_NUM_THREADS": "1"}

    @contextmanager
    def _slot(self, name: str) -> Iterator[None]:
        """One of as many as may be under way at a time: more would only take longer, each of them."""
        many = 8 if self.gpu else max(1, len(os.sched_getaffinity(0)))
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(open(self._folder / f"slot{number}.lock", "a")) for number in range(many)
            ]
            for file in files:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
            else:
                fcntl.flock(files[zlib.crc32(name.encode()) % many], fcntl.LOCK_EX)
            yield

    @contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        with open(self._folder / name, "a") as file:
            fcntl.flock(file, how)
            yield


def _given() -> dict[str, Any]:
    text = os.environ.get(ENGINE, "").strip()
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise AssertionError(f"{ENGINE}: {text!r} is no JSON: {error}") from None
    check(isinstance(found, dict), f"{ENGINE}: {text!r} is no JSON object of arguments of vllm.LLM")
    return dict(found)


# -- what is looked for in them --------------------------------------------------------------------------


def started(run: Run, what: str) -> Engine:
    """Its engine, which has generated. Raises AssertionError with what stood in the way."""
    check(run.engines and not run.error, f"{what}: no engine: {run.error}\n{run.log[-1500:]}")
    engine = run.engine
    check(all(engine.tokens) and engine.tokens, f"{what}: the engine has generated nothing: {engine.tokens}")
    return engine


def names(run: Run) -> list[str]:
    """Of the events, in their order."""
    return [str(event["what"]) for event in run.events]


def first(run: Run, what: str) -> dict[str, Any]:
    """The first event of that name. Raises AssertionError where there is none."""
    found = [event for event in run.events if event["what"] == what]
    check(found, f"there was no event {what!r}; there were: {', '.join(names(run)) or 'none'}")
    return found[0]


def same(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Raises AssertionError that names each entry that differs, with both values."""
    differ = [
        f"{name}: {found.get(name, 0)} instead of {wanted.get(name, 0)}"
        for name in sorted({*found, *wanted})
        if found.get(name, 0) != wanted.get(name, 0)
    ]
    check(not differ, f"{what}: {'; '.join(differ)}")


def counters(engine: Engine) -> dict[str, int]:
    """What the engine counted, but for `_BY_THE_PATH`."""
    return {name: value for name, value in engine.counters.items() if not name.startswith(_BY_THE_PATH)}


_BY_THE_PATH = (
    "inductor.async_compile_cache",
    "inductor.benchmarking.",
    "inductor.triton_bundler_save_kernel",
)
"""Counters of how kernels are come by, which is where the two paths differ: how often one was looked up, how often its
configurations were measured, and how many files of those that were tried go into a bundle."""


def clean(run: Run, what: str) -> None:
    """Nothing of it is left. Raises AssertionError with what is."""
    check(not run.survivors, f"{what}: still there when its process had ended: {run.survivors}")
    left = [pid for engine in run.engines for pid in engine.left]
    check(not left, f"{what}: processes of a pool are left after the engine was shut down: {left}")
    check(
        not run.shared, f"{what}: shared memory is left that nobody uses (it has been removed): {run.shared}"
    )
