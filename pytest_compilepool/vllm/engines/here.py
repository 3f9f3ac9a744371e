# SPDX-License-Identifier: Apache-2.0
"""Engines in this process: made one by one, all shut down in the end, and the process left as it was."""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_compilepool import vllm_compat
from pytest_compilepool.leaks.base import MISSING, same
from pytest_compilepool.torch_compat import settings
from pytest_compilepool.torch_compat.probe import inductor
from pytest_compilepool.vllm import ahead, plugin
from pytest_compilepool.vllm.engines import cpu, defaults, models
from pytest_compilepool.vllm.engines.order import Order
from pytest_compilepool.vllm.engines.start import environment
from pytest_compilepool.vllm.settings import EVENTS, PROCESSES

_NAME = "vllm_engine()"
_HERE = "VLLM_ENABLE_V1_MULTIPROCESSING"
# Of an interpreter of its own: what torch reads once in the life of a process would stay when the engine is gone.
_NOT_HERE = ("TORCHINDUCTOR_", "PYTHONHASHSEED", "TMPDIR", "VLLM_PLUGINS", EVENTS)
_RUNNER = "PYTEST_"  # pytest says there which phase of a test it is in


class EnginesHere:
    """A context manager. root: VLLM_CACHE_ROOT; processes: of the pool, as text, empty for none."""

    def __init__(self, root: Path, processes: str = "") -> None:
        self._root, self._processes = root, processes
        self._environment: dict[str, str] = {}
        self._config: dict[str, Any] | None = None
        self._engines: list[Any] = []

    def __enter__(self) -> EnginesHere:
        self._environment = dict(os.environ)
        return self

    def make(self, model: str = "tiny-opt", processes: int | str | None = None, **engine: Any) -> Any:
        """A `vllm.LLM`.

        model: one of this package by its name, or a folder with a `config.json`; where it has no weights they are vLLM's
        dummies. processes: 1 or an empty text is no pool. engine: arguments of `vllm.LLM` beyond small defaults. Raises
        ValueError with a sentence for what is not allowed, and what vLLM raises.
        """
        folder = str(models.find(str(model), f"{_NAME}: model"))
        asked = self._processes if processes is None else processes
        self._prepare(Order(folder, defaults.processes(asked, f"{_NAME}: processes")))
        vllm = importlib.import_module("vllm")
        on_cpu = cpu.is_cpu()
        if on_cpu:
            cpu.keep_vllm_compile()
        # vLLM has its plugins called once in the life of a process, which may be over.
        plugin.register()
        before = plugin.current()
        try:
            made = vllm.LLM(**defaults.arguments(folder, on_cpu, engine))
        except BaseException:
            _end_pool(before)
            raise
        self._engines.append(made)
        return made

    def _prepare(self, order: Order) -> None:
        wanted = environment(order, self._root, self._root, {})
        for name, value in wanted.items():
            if not name.startswith(_NOT_HERE):
                os.environ.setdefault(name, value)  # whoever has set it for the test means it
        os.environ[_HERE] = "0"
        os.environ.pop(PROCESSES, None)
        if order.processes:
            os.environ[PROCESSES] = order.processes
        vllm_compat.forget_environment()
        inductor("config")
        if self._config is None:
            self._config = settings.config_snapshot() or {}
        # As vLLM does when it is imported, which may have been for an earlier test.
        settings.set_config("compile_threads", 1)
        # torch keeps those in its default folder, whatever folder it is given.
        settings.set_config("cpp_cache_precompile_headers", False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:  # each of them, whatever the others raise
            stack.callback(self._put_back)
            stack.callback(_clean_up)
            for engine in self._engines:
                stack.callback(engine.llm_engine.engine_core.shutdown)
            self._engines.clear()

    def _put_back(self) -> None:
        for name in {*os.environ, *self._environment}:
            value = self._environment.get(name)
            if name.startswith(_RUNNER) or os.environ.get(name) == value:
                continue
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        vllm_compat.forget_environment()
        for name, value in (settings.config_snapshot() or {}).items():
            before = (self._config or {}).get(name, MISSING)
            if before is not MISSING and not same(before, value):
                settings.config_restore(name, copy.deepcopy(before))


def _end_pool(before: Any) -> None:
    """That of an engine that did not come to be: nobody will shut it down. before: the lifecycle before it, or None."""
    ahead.end()
    lifecycle = plugin.current()
    if lifecycle is not None and lifecycle is not before:
        lifecycle.end()


def _clean_up() -> None:
    """vLLM's groups of processes, which would be in the way of the next engine; best effort."""
    distributed = sys.modules.get("vllm.distributed")
    with contextlib.suppress(Exception):
        if distributed is not None:
            distributed.cleanup_dist_env_and_memory()
    gc.collect()
