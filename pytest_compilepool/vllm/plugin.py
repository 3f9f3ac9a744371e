# SPDX-License-Identifier: Apache-2.0
"""The entry point that vLLM calls in each of its processes, and the hooks on a worker."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_compilepool import torch_compat, vllm_compat
from pytest_compilepool.vllm import ahead
from pytest_compilepool.vllm.events import EventLog
from pytest_compilepool.vllm.lifecycle import Lifecycle, describe, log
from pytest_compilepool.vllm.remembered import Remembered, identity_of
from pytest_compilepool.vllm.settings import (
    PROCESSES,
    BadSetting,
    Settings,
    decide,
    from_environment,
    why_one,
)

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
        # Not getattr: what a wrapper does not have it looks for in a worker that is not there yet.
        if _HELD not in vars(wrapper):
            setattr(wrapper, _HELD, (_guarded(_begin, wrapper.vllm_config, late),))
        (lifecycle,) = vars(wrapper)[_HELD]
        delattr(wrapper, _HELD)  # another engine in the same wrapper has another life
        setattr(wrapper, _RUNNING, lifecycle)
        result = _or_ended(wrapper, initialise, wrapper, *args, **named)
        if lifecycle is not None and not _guarded(_attach, wrapper.worker, lifecycle, version):
            lifecycle.end()  # without its hooks nothing would be quiesced
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
        for lifecycle in (*vars(wrapper).get(_HELD, ()), vars(wrapper).get(_RUNNING)):
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
        reason = why_one(decision)
        EventLog(settings.events).note("off", "absent", reason=reason, processes=decision.processes)
        log.warning("no compile pool: %s", reason)
        return None
    lifecycle = ahead.take(decision.processes, settings)
    if lifecycle is None:
        lifecycle = Lifecycle(decision.processes, settings, EventLog(settings.events), vllm_compat.target())
    log.info("%s", describe(decision.processes, decision.why))
    root = Path(torch_compat.cache_roots()["VLLM_CACHE_ROOT"])
    _begun[:] = [one for one in _begun if not one.is_over()] + [lifecycle]
    try:
        lifecycle.begin(Remembered(root, identity_of(config, capabilities.torch)), when)
    except BaseException:
        lifecycle.end()
        raise
    return lifecycle


def _attach(worker: Any, lifecycle: Lifecycle, version: str) -> bool:
    """Put the hooks on the instances, whatever their classes are; the classes stay as they are. Returns True."""
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
                lifecycle.end,
            )
        else:
            _surround(owner, hook.name, None, after[hook.name], lifecycle.end)
        found.append(hook.name)
    setattr(worker, ATTRIBUTE, lifecycle)
    runner = type(owners["runner"])
    lifecycle.attached(
        worker=type(worker).__qualname__, runner=f"{runner.__module__}.{runner.__qualname__}", hooks=found
    )
    # A worker that vLLM drops without a shutdown, as where memory was lacking between two hooks.
    weakref.finalize(worker, lifecycle.end).atexit = False  # then torch ends its pools itself
    return True


def _surround(
    owner: Any,
    name: str,
    before: Callable[[], None] | None,
    after: Callable[[], None],
    failed: Callable[[], None],
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def surrounded(*args: Any, **named: Any) -> Any:
        if before is not None:
            before()
        try:
            result = original(*args, **named)
        except BaseException:
            failed()  # an engine that does not come to be has nobody who shuts its worker down
            raise
        after()
        return result

    setattr(owner, name, surrounded)
