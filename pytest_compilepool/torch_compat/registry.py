# SPDX-License-Identifier: Apache-2.0
"""torch's own list of pools, and the one pool that it hands out: what is made there, taken out, put back, forgotten.

Pools are `Any`, as in `pools`. What `torch_compat` says of imports holds here.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing.util
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pytest_compilepool.torch_compat.pools import (
    async_compile,
    configured_processes,
    is_running,
    is_sidecar_pool,
    memoised_pool,
    registered_pools,
)
from pytest_compilepool.torch_compat.probe import inductor
from pytest_compilepool.torch_compat.settings import get_config, set_config


def ready_future(pool: Any) -> Future[Any]:
    """The probe whose result says that a worker answered; started here where torch has not."""
    own = getattr(pool, "ready_future", None)  # torch 2.8 keeps it on the pool
    if own is not None:
        return own  # type: ignore[no-any-return]
    owner = inductor("async_compile").AsyncCompile
    submit: Callable[..., Future[Any]] = pool.submit
    if memoised_pool() is not pool:
        return submit(owner._get_ready)
    if owner._ready_future is None:
        owner._ready_future = submit(owner._get_ready)
    return owner._ready_future  # type: ignore[no-any-return]


def make_pool(
    processes: int, start_method: str, pickler: Any = None, environ: Mapping[str, str] | None = None
) -> Any:
    """Have torch make its pool, as `AsyncCompile.warm_pool()` does. Imports torch.

    pickler: a `SubprocPickler`, whose module the sidecar imports before anything else; None for torch's own.
    environ: variables for the sidecar beside those of this process.
    Sets `compile_threads` and `worker_start_method` of torch's config and leaves them so. Raises what
    torch raises. The caller has made sure that torch holds no pool.
    """
    module = inductor("async_compile")
    set_config("worker_start_method", start_method)
    set_config("compile_threads", processes)
    with _sidecar_with(module, pickler, environ or {}):
        module.AsyncCompile.warm_pool()
        pool = memoised_pool()
        # With thread workers configured (2.15) warm_pool() makes no process pool: ask for it by name.
        return module.AsyncCompile.process_pool() if pool is None else pool


@contextlib.contextmanager
def _sidecar_with(module: Any, pickler: Any, environ: Mapping[str, str]) -> Iterator[None]:
    """A sidecar that is made in the block has this pickler and these variables."""
    original = module.SubprocPool
    if pickler is not None:
        module.SubprocPool = functools.partial(original, pickler=pickler)
    os.environ.update(environ)
    try:
        yield
    finally:
        for name in environ:
            del os.environ[name]
        module.SubprocPool = original


@dataclass(frozen=True)
class TakenOut:
    """What torch held when `take_out` cleared its registry: everything `put_back` needs."""

    memoised: Any | None
    registered: tuple[Any, ...]
    ready: Future[Any] | None
    threads: Any
    start_method: Any


def take_out() -> TakenOut:
    """Make torch forget its pools without shutting them down, and say what it held."""
    module = async_compile()
    if module is None:
        return TakenOut(None, (), None, None, None)
    held = TakenOut(
        memoised_pool(),
        tuple(registered_pools()),
        getattr(module.AsyncCompile, "_ready_future", None),
        get_config("compile_threads"),
        get_config("worker_start_method"),
    )
    module._pool_set.clear()
    module.AsyncCompile.process_pool.cache_clear()
    if hasattr(module.AsyncCompile, "_ready_future"):
        module.AsyncCompile._ready_future = None
    return held


def put_back(held: TakenOut) -> None:
    """Give torch back what `take_out` took, and the two settings that go with it.

    Pools that were closed meanwhile are not put back: torch would hand a dead one out for ever.
    """
    module = async_compile()
    if module is None:
        return
    if held.threads is not None:
        set_config("compile_threads", held.threads)
        set_config("worker_start_method", held.start_method)
    module._pool_set.clear()
    module.AsyncCompile.process_pool.cache_clear()
    if hasattr(module.AsyncCompile, "_ready_future"):
        module.AsyncCompile._ready_future = None
    if held.memoised is not None and is_running(held.memoised):
        install(held.memoised, held.ready)
    for pool in held.registered:
        if is_running(pool):
            module._pool_set.add(pool)


def install(pool: Any, ready: Future[Any] | None) -> None:
    """Make torch hand out this pool: the one way into its `lru_cache` is to be what its maker makes."""
    module = inductor("async_compile")
    maker = "SubprocPool" if is_sidecar_pool(pool) else "TrackedProcessPoolExecutor"
    original = getattr(module, maker)
    threads, method = get_config("compile_threads"), get_config("worker_start_method")
    processes = configured_processes(pool) or 2
    setattr(module, maker, lambda *args, **kwargs: pool)
    # torch 2.8 submits its ready probe when it makes the pool: keep the one that is there.
    kept = getattr(pool, "ready_future", None)
    before = _finalizers()
    try:
        set_config("compile_threads", max(2, processes))
        set_config("worker_start_method", "subprocess" if is_sidecar_pool(pool) else _executor_method(pool))
        module.AsyncCompile.process_pool()
    finally:
        setattr(module, maker, original)
        set_config("compile_threads", threads)
        set_config("worker_start_method", method)
        _drop_finalizers(lambda key: key not in before)
    if hasattr(module.AsyncCompile, "_ready_future"):
        module.AsyncCompile._ready_future = ready
    elif kept is not None:
        pool.ready_future = kept


def _executor_method(pool: Any) -> str:
    context = getattr(pool, "_mp_context", None)
    return str(context.get_start_method()) if context is not None else "fork"


def forget(pool: Any) -> None:
    """Remove every trace of a closed pool: registry, memo, ready probe, exit handlers."""
    module = async_compile()
    if module is not None:
        module._pool_set.discard(pool)
        if memoised_pool() is pool:
            module.AsyncCompile.process_pool.cache_clear()
            if hasattr(module.AsyncCompile, "_ready_future"):
                module.AsyncCompile._ready_future = None
    # Since 2.13 every pool leaves a finalizer, and with it itself, behind for the life of the process.
    shutdown = getattr(pool, "shutdown", None)
    registry = _finalizers()
    _drop_finalizers(lambda key: getattr(registry[key], "_callback", None) == shutdown)


def _finalizers() -> dict[Any, Any]:
    return dict(getattr(multiprocessing.util, "_finalizer_registry", {}))


def _drop_finalizers(unwanted: Callable[[Any], bool]) -> None:
    for key, finalizer in _finalizers().items():
        if unwanted(key):
            finalizer.cancel()
