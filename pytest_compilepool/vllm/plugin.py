# SPDX-License-Identifier: Apache-2.0
"""The entry point that vLLM calls in each of its processes, and the hooks on a worker."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_compilepool import torch_compat, vllm_compat
from pytest_compilepool.vllm import ahead
from pytest_compilepool.vllm.events import EventLog
from pytest_compilepool.vllm.lifecycle import Lifecycle, describe, log
from pytest_compilepool.vllm.remembered import Remembered, identity_of
from pytest_compilepool.vllm.settings import PROCESSES, BadSetting, Settings, decide, from_environment

ATTRIBUTE = "compile_pool"
"""Of a worker: its `Lifecycle`, where it has one."""

_MARK = "_compilepool_lifecycle"
# Of vLLM's wrapper around a worker: its lifecycle until, and since, its device is initialised.
_HELD, _RUNNING = "_compilepool_held", "_compilepool_running"
_begun: list[Lifecycle] = []


def register() -> None:
    """Called by vLLM once in every process. Starts nothing; does nothing where VLLM_COMPILE_PROCESSES is not set."""
    if not os.environ.get(PROCESSES, "").strip():
        return
    version = vllm_compat.vllm_version() or "of unknown version"
    if not vllm_compat.is_known(version):
        first, last = vllm_compat.FIRST, vllm_compat.LAST
        log.warning("%s is not followed: vLLM %s is none of %s to %s", PROCESSES, version, first, last)
        return
    try:
        settings = _asked()
        owner = vllm_compat.seam_class()
    except BadSetting as error:
        log.warning("no compile pool: %s", error)
        return
    except (ImportError, AttributeError) as error:
        log.warning("no compile pool: vLLM %s is not as it is known to be: %s", version, error)
        return
    if settings is not None:
        _follow(owner, version)


def current() -> Lifecycle | None:
    """The lifecycle that was begun last in this process, or None."""
    return ahead.waiting() or (_begun[-1] if _begun else None)


def _asked() -> Settings | None:
    """What the environment asks for now; None where that is no pool. Raises BadSetting."""
    settings = from_environment()
    return None if settings is None or settings.processes == "1" else settings


def _follow(owner: Any, version: str) -> None:
    """Have every worker of this process get its pool when it is made, or else when its device is initialised.

    What is asked for is read again for each: a process that makes several engines may ask anew for every one.
    """
    early, late = vllm_compat.EARLY.method, vllm_compat.SEAM.method
    make, initialise = getattr(owner, early), getattr(owner, late)
    if getattr(initialise, _MARK, False):
        return

    # In a process whose plugins it loads itself it is running already, and the later one begins.
    @functools.wraps(make)
    def init_worker(wrapper: Any, *args: Any, **named: Any) -> Any:
        config = _guarded(vllm_compat.config_of_worker, args, named)
        if config is not None:
            setattr(wrapper, _HELD, (_guarded(_begin, config, early),))
        return _or_ended(wrapper, make, wrapper, *args, **named)

    @functools.wraps(initialise)
    def init_device(wrapper: Any, *args: Any, **named: Any) -> Any:
        if not hasattr(wrapper, _HELD):
            setattr(wrapper, _HELD, (_guarded(_begin, wrapper.vllm_config, late),))
        (lifecycle,) = getattr(wrapper, _HELD)
        delattr(wrapper, _HELD)  # another engine in the same wrapper has another life
        setattr(wrapper, _RUNNING, lifecycle)
        result = _or_ended(wrapper, initialise, wrapper, *args, **named)
        if lifecycle is not None:
            _guarded(_attach, wrapper.worker, lifecycle, version)
        return result

    ahead.follow()
    setattr(init_device, _MARK, True)
    setattr(owner, early, init_worker)
    setattr(owner, late, init_device)


def _or_ended(wrapper: Any, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What it returns; where it raises there will be no worker to be shut down, and the pool is ended here."""
    try:
        return call(*args, **named)
    except BaseException:
        for lifecycle in (*getattr(wrapper, _HELD, ()), getattr(wrapper, _RUNNING, None)):
            if lifecycle is not None:
                lifecycle.end()
        raise


def _guarded(call: Callable[..., Any], *args: Any) -> Any:
    """What it returns; None where it fails, which must not be vLLM's trouble."""
    try:
        return call(*args)
    except Exception as error:
        log.warning("no compile pool: %s: %s", type(error).__name__, error)
        return None


def _begin(config: Any, when: str) -> Lifecycle | None:
    """The lifecycle of a worker with this `VllmConfig`, begun; None where it is not to have one. when: for its events."""
    settings = _asked()
    if settings is None:
        ahead.end()
        return None
    why_not = vllm_compat.compiles_nothing(config)
    if why_not:
        ahead.end()
        EventLog(settings.events).note("off", "absent", reason=why_not)
        return None
    capabilities = torch_compat.capabilities()
    decision = decide(settings, vllm_compat.local_ranks(config), capabilities)
    if decision.processes < 2:
        ahead.end()
        EventLog(settings.events).note("off", "absent", reason=decision.why, processes=decision.processes)
        log.warning("no compile pool: %s", decision.unsafe_because or decision.why)
        return None
    lifecycle = ahead.take(decision.processes)
    if lifecycle is None:
        lifecycle = Lifecycle(decision.processes, settings, EventLog(settings.events), vllm_compat.target())
    log.info("%s", describe(decision.processes, decision.why))
    root = Path(torch_compat.cache_roots()["VLLM_CACHE_ROOT"])
    _begun.append(lifecycle)
    lifecycle.begin(Remembered(root, identity_of(config, capabilities.torch)), when)
    return lifecycle


def _attach(worker: Any, lifecycle: Lifecycle, version: str) -> None:
    """Put the hooks on the instances, whatever their classes are; the classes stay as they are."""
    owners = {"worker": worker, "runner": getattr(worker, "model_runner", None)}
    after = {
        "load_model": lifecycle.loaded,
        "compile_or_warm_up_model": lifecycle.warmed_up,
        "shutdown": lifecycle.end,
    }
    found = []
    for hook in vllm_compat.hooks_of(version):
        owner = owners[hook.owner]
        if not hasattr(owner, hook.name):
            continue
        if hook.captures:
            _surround(
                owner,
                hook.name,
                functools.partial(lifecycle.before_capture, hook.name),
                functools.partial(lifecycle.after_capture, hook.name),
            )
        else:
            _surround(owner, hook.name, None, after[hook.name])
        found.append(hook.name)
    setattr(worker, ATTRIBUTE, lifecycle)
    runner = type(owners["runner"])
    lifecycle.attached(
        worker=type(worker).__qualname__, runner=f"{runner.__module__}.{runner.__qualname__}", hooks=found
    )


def _surround(
    owner: Any, name: str, before: Callable[[], None] | None, after: Callable[[], None] | None
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def surrounded(*args: Any, **named: Any) -> Any:
        if before is not None:
            before()
        try:
            return original(*args, **named)
        finally:
            if after is not None:
                after()

    setattr(owner, name, surrounded)
