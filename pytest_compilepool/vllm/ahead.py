# SPDX-License-Identifier: Apache-2.0
"""A sidecar that is started before its worker is there: where the engine will be in this process, and nothing is cached.

Its imports take longer than all that vLLM does between making a worker and its first kernel, unless there are weights to
be loaded.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from pytest_compilepool import torch_compat, vllm_compat
from pytest_compilepool.vllm.events import EventLog
from pytest_compilepool.vllm.lifecycle import Lifecycle, log
from pytest_compilepool.vllm.remembered import any_artifacts
from pytest_compilepool.vllm.settings import Settings, decide, from_environment

_waiting: list[Lifecycle] = []
_maker = 0  # pid of the process that has started it


def follow() -> None:
    """From now on each engine that is made for this process has its sidecar started, if a pool is asked for then."""
    owner, name = vllm_compat.engine_class(), vllm_compat.ENGINE.method
    method = None if owner is None else owner.__dict__.get(name)
    if not isinstance(method, classmethod):
        return
    original = method.__func__

    @functools.wraps(original)
    def from_engine_args(kind: Any, engine_args: Any, *args: Any, **named: Any) -> Any:
        try:
            _start(engine_args)
        except Exception as error:
            log.warning("no compile pool ahead: %s: %s", type(error).__name__, error)
        try:
            return original(kind, engine_args, *args, **named)
        finally:
            end()  # a configuration that vLLM refuses, or a worker that wants another: nobody has taken it

    setattr(owner, name, classmethod(from_engine_args))


def take(processes: int, settings: Settings) -> Lifecycle | None:
    """The one that waits, if it is as it is wanted; from now on its worker's. Another one is ended."""
    if _waiting and os.getpid() != _maker:
        _waiting.clear()  # a fork of who has started it
    if _waiting and _waiting[0].pool.processes == processes and _waiting[0].is_for(settings):
        return _waiting.pop()
    end()
    return None


def waiting() -> Lifecycle | None:
    """The one that was started and has no worker yet, or None."""
    return _waiting[0] if _waiting else None


def end() -> None:
    """Nobody will want it."""
    while _waiting and os.getpid() == _maker:
        _waiting.pop().end()


def _start(arguments: Any) -> None:
    global _maker
    root = Path(torch_compat.cache_roots()["VLLM_CACHE_ROOT"])
    settings = from_environment()
    if settings is None or _waiting or any_artifacts(root) or not vllm_compat.compiles_here(arguments):
        return
    decision = decide(settings, 1, torch_compat.capabilities())
    if decision.processes >= 2:
        lifecycle = Lifecycle(decision.processes, settings, EventLog(settings.events), vllm_compat.target())
        _waiting.append(lifecycle)
        _maker = os.getpid()
        lifecycle.ahead(vllm_compat.ENGINE.method)
