# SPDX-License-Identifier: Apache-2.0
"""torch's pool as its own users reach it, with nothing mended: what the conformance suite tries."""

from __future__ import annotations

import inspect
from typing import Any

from pytest_compilepool.torch_compat import registry
from pytest_compilepool.torch_compat.probe import inductor
from pytest_compilepool.torch_compat.settings import get_config, set_config


def make(processes: int, idle_seconds: float | None, start_method: str = "subprocess") -> Any:
    """torch's pool, started by `AsyncCompile.warm_pool()`. idle_seconds: of its quiesce timer; None: never."""
    inductor("async_compile")
    if idle_seconds is None:
        set_config("quiesce_async_compile_pool", False)
    else:
        set_config("quiesce_async_compile_pool", True)
        set_config("quiesce_async_compile_time", idle_seconds)
    return registry.make_pool(processes, start_method)


def current() -> Any:
    """The pool that the next kernel would be sent to. Raises what torch raises."""
    return inductor("async_compile").AsyncCompile.process_pool()


def offered() -> bool:
    """Whether torch would send it there now, rather than compile it in this process."""
    owner = inductor("async_compile").AsyncCompile
    # Of the class since 2.9; before that of an instance, of which there may be any number.
    return bool(
        owner.use_process_pool() if inspect.ismethod(owner.use_process_pool) else owner().use_process_pool()
    )


def shutdown() -> None:
    """What torch does at exit. Raises what torch raises."""
    inductor("async_compile").shutdown_compile_workers()


def setting(name: str) -> Any:
    """One of Inductor's settings, as this process has it. Imports torch's Inductor."""
    return getattr(inductor("config"), name)


def change_setting(name: str, value: Any) -> None:
    """Change it."""
    setattr(inductor("config"), name, value)


def serve(pool: Any, wait: float | None) -> None:
    """Have Inductor of this process send its kernels to this pool, which torch has not made.

    wait: seconds until a worker must have answered torch's probe; None: torch asks when it has a kernel.
    """
    probe = None
    if wait is not None:
        probe = pool.submit(inductor("async_compile").AsyncCompile._get_ready)
        probe.result(wait)
    registry.install(pool, probe)
    # With one thread it would not be asked, however many workers it has.
    set_config("compile_threads", max(2, int(get_config("compile_threads") or 0)))


def alone() -> None:
    """Have Inductor of this process compile by itself, without a pool."""
    inductor("async_compile")
    set_config("compile_threads", 1)


def decided_count() -> int:
    """What `compile_threads` is when nobody sets it. Raises what torch raises when its config is imported."""
    return int(inductor("config").decide_compile_threads())
