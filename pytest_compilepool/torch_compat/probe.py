# SPDX-License-Identifier: Apache-2.0
"""What the installed torch can do with its compile pool, found by looking at it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from pytest_compilepool.torch_compat.installed import installed_version

_WARM_POOL = "TORCH_WARM_POOL"
_START = "TORCHINDUCTOR_WORKER_START"
_KNOWN_START_METHODS = ("subprocess", "fork", "spawn")


class TorchUnavailable(RuntimeError):
    """There is no torch here, or none that has Inductor's compile pool; the message says which."""


@dataclass(frozen=True)
class Capabilities:
    """What one torch can do.

    torch, triton: version texts (triton None where it is not installed).
    quiesce, wakeup: the pool can let its workers go, and fork them again (torch 2.9).
    quiesce_timer: the pool quiesces by itself when idle (2.10); quiesce_timer_seconds: after how long;
    quiesce_by_default: whether that is on unless somebody turns it off.
    ready_wait: what torch offers to wait for a ready pool: `wait_process_pool_ready` (2.14),
    `wait_pool_ready` (2.9), `ready_future` (2.8).
    pending_jobs: the attribute that keeps pending jobs: `pending_futures`, from 2.15 `pending_jobs`.
    health_watch: a thread notices a dead sidecar (2.14); closes_pipe_ends: the parent drops its copies
    of the sidecar's pipe ends, so that a dead sidecar means end-of-file (2.14).
    thread_workers: Triton kernels can be compiled by threads instead (2.15).
    wait_timeout: a compile can be told to give up waiting for a worker (2.13).
    start_methods: accepted by `worker_start_method`; daemonic_start_methods: those of them with which
    a daemonic process may own a pool; refuses_daemonic: torch itself says so clearly (2.13).
    memoises_pool: torch keeps one pool for the process and hands it out again.
    """

    torch: str
    triton: str | None
    quiesce: bool
    wakeup: bool
    quiesce_timer: bool
    quiesce_timer_seconds: float | None
    quiesce_by_default: bool
    ready_wait: str
    pending_jobs: str
    health_watch: bool
    closes_pipe_ends: bool
    thread_workers: bool
    wait_timeout: bool
    start_methods: tuple[str, ...]
    daemonic_start_methods: tuple[str, ...]
    refuses_daemonic: bool
    memoises_pool: bool

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return dataclasses.asdict(self)


def inductor(module: str) -> Any:
    """Import `torch._inductor.<module>`, whatever torch warns of meanwhile.

    Raises TorchUnavailable with one sentence where that fails.
    """
    name = f"torch._inductor.{module}"
    if name in sys.modules:
        return sys.modules[name]
    if "torch" not in sys.modules and importlib.util.find_spec("torch") is None:
        raise TorchUnavailable(
            f"torch is not installed for {sys.executable}: install it (for example "
            "`pip install torch`) to use a compile pool"
        )
    try:
        with _quietly():
            # First, and without the variable: a census may be taken as soon as this appears.
            importlib.import_module("torch._inductor.compile_worker.subproc_pool")
            with _without_a_pool():
                return importlib.import_module(name)
    except Exception as error:
        version = installed_version() or "of unknown version"
        # What fails in the middle of it takes torch itself out of there again.
        what = f"has no usable {name}" if "torch" in sys.modules else "is installed, but cannot be imported"
        # Its words for a wrong value do not say where that came from.
        start = os.environ.get(_START)
        hint = "" if start is None or start not in str(error) else f" ({_START}={start})"
        raise TorchUnavailable(f"torch {version} {what}: {type(error).__name__}: {error}{hint}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Around the import of torch: what it says of itself meanwhile is not the test's fault.

    Deprecated names, no numpy: as an error it would leave a torch that cannot be imported again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _without_a_pool() -> Iterator[None]:
    """Around the import of async_compile: torch 2.8 starts a pool in it unless this variable says no.

    Later ones read the variable only when they are asked for a pool.
    """
    wanted = os.environ.get(_WARM_POOL)
    os.environ[_WARM_POOL] = "0"
    try:
        yield
    finally:
        if wanted is None:
            del os.environ[_WARM_POOL]
        else:
            os.environ[_WARM_POOL] = wanted


def capabilities() -> Capabilities:
    """Look at the installed torch. Imports it (seconds). Raises TorchUnavailable where there is none."""
    async_compile = inductor("async_compile")
    config = inductor("config")
    pool_class = getattr(inductor("compile_worker.subproc_pool"), "SubprocPool", None)
    owner = getattr(async_compile, "AsyncCompile", None)
    if pool_class is None or owner is None:
        raise TorchUnavailable(
            f"torch {_torch_version()} has no SubprocPool or no AsyncCompile, which are Inductor's pool"
        )
    init = inspect.unwrap(pool_class.__init__)
    takes_quiesce = "quiesce" in inspect.signature(init).parameters
    seconds = getattr(config, "quiesce_async_compile_time", None) if takes_quiesce else None
    start_methods = _start_methods(config)
    return Capabilities(
        torch=_torch_version(),
        triton=installed_version("triton"),
        quiesce=hasattr(pool_class, "quiesce"),
        wakeup=hasattr(pool_class, "wakeup"),
        quiesce_timer=seconds is not None,
        quiesce_timer_seconds=None if seconds is None else float(seconds),
        quiesce_by_default=bool(getattr(config, "quiesce_async_compile_pool", False)),
        ready_wait=_first_of(owner, "wait_process_pool_ready", "wait_pool_ready") or "ready_future",
        pending_jobs="pending_jobs" if "pending_jobs" in init.__code__.co_names else "pending_futures",
        health_watch=hasattr(pool_class, "_health_monitor"),
        closes_pipe_ends="close" in init.__code__.co_names,
        thread_workers=hasattr(owner, "should_use_thread_workers"),
        wait_timeout=hasattr(config, "compile_worker_wait_timeout"),
        start_methods=start_methods,
        # The sidecar is started by subprocess.Popen, which multiprocessing's rule about daemons does
        # not cover; fork and spawn go through multiprocessing, which refuses.
        daemonic_start_methods=tuple(m for m in start_methods if m == "subprocess"),
        refuses_daemonic=hasattr(async_compile, "_process_pool_allowed"),
        memoises_pool=hasattr(getattr(owner, "process_pool", None), "cache_clear"),
    )


def _torch_version() -> str:
    torch = sys.modules.get("torch")
    return str(getattr(torch, "__version__", None) or installed_version() or "of unknown version")


def _first_of(owner: Any, *names: str) -> str | None:
    return next((name for name in names if hasattr(owner, name)), None)


def _start_methods(config: Any) -> tuple[str, ...]:
    """The words that the check in `decide_worker_start_method` accepts, read from its code."""
    decide = getattr(config, "decide_worker_start_method", None)
    code = getattr(decide, "__code__", None)
    words = _words(code) if code is not None else set()
    found = tuple(method for method in _KNOWN_START_METHODS if method in words)
    return found or ("subprocess",)


def _words(code: CodeType) -> set[str]:
    words: set[str] = set()
    for constant in code.co_consts:
        if isinstance(constant, str):
            words.add(constant)
        elif isinstance(constant, (tuple, frozenset)):
            words.update(part for part in constant if isinstance(part, str))
    return words
