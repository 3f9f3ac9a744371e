# SPDX-License-Identifier: Apache-2.0
"""A sidecar that is started before its worker is there: where the engine will be in this process, and nothing is cached.

Its imports take longer than all that vLLM does between making a worker and its first kernel, unless there are weights to
be loaded.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pytest_compilepool import torch_compat, vllm_compat
from pytest_compilepool.vllm.events import EventLog
from pytest_compilepool.vllm.lifecycle import Lifecycle, log
from pytest_compilepool.vllm.remembered import any_artifacts
from pytest_compilepool.vllm.settings import decide, from_environment

_waiting: list[Lifecycle] = []


def follow() -> None:
    """From now on each engine that is configured for this process has its sidecar started, if a pool is asked for then."""
    owner, name = vllm_compat.engine_args_class(), vllm_compat.ENGINE_ARGS.method
    original = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def create_engine_config(arguments: Any, *args: Any, **named: Any) -> Any:
        try:
            _start(arguments)
        except Exception as error:
            log.warning("no compile pool ahead: %s: %s", type(error).__name__, error)
        try:
            return original(arguments, *args, **named)
        except BaseException:
            end()  # a configuration that vLLM refuses
            raise

    setattr(owner, name, create_engine_config)


def take(processes: int) -> Lifecycle | None:
    """The one that waits, if it has so many processes; from now on its worker's. Another one is ended."""
    if _waiting and _waiting[0].pool.processes == processes:
        return _waiting.pop()
    end()
    return None


def waiting() -> Lifecycle | None:
    """The one that was started and has no worker yet, or None."""
    return _waiting[0] if _waiting else None


def end() -> None:
    """Nobody will want it."""
    while _waiting:
        _waiting.pop().end()


def _start(arguments: Any) -> None:
    root = Path(torch_compat.cache_roots()["VLLM_CACHE_ROOT"])
    settings = from_environment()
    if settings is None or _waiting or any_artifacts(root) or not vllm_compat.compiles_here(arguments):
        return
    decision = decide(settings, 1, torch_compat.capabilities())
    if decision.processes >= 2:
        lifecycle = Lifecycle(decision.processes, settings, EventLog(settings.events), vllm_compat.target())
        _waiting.append(lifecycle)
        lifecycle.ahead(vllm_compat.ENGINE_ARGS.method)
