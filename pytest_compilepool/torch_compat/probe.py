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
        with _importing():
            return importlib.import_module(name)
    except Exception as error:
        version = installed_version() or "of unknown version"
        raise TorchUnavailable(
            f"torch {version} has no usable {name}: {type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Around the import of torch: neither its own warnings nor, on torch 2.8, a pool may come of it."""
    wanted = os.environ.get(_WARM_POOL)
    refused = _import_starts_a_pool()
    if refused:
        os.environ[_WARM_POOL] = "0"
    try:
        with warnings.catch_warnings():
            # What torch says of itself while it is imported (deprecated names, no numpy) is not the
            # test's fault, and as an error it would leave a torch that cannot be imported again.
            warnings.simplefilter("ignore")
            yield
    finally:
        if refused and wanted is None:
            del os.environ[_WARM_POOL]
        elif refused and wanted is not None:
            os.environ[_WARM_POOL] = wanted


def _import_starts_a_pool() -> bool:
    """Whether importing `async_compile` warms a pool, as torch 2.8 does; later ones have a function for that."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            with open(os.path.join(folder, "_inductor", "async_compile.py"), encoding="utf-8") as file:
                return "def maybe_warm_pool" not in file.read()
        except OSError:
            continue
    return True


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
