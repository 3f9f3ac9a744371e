# SPDX-License-Identifier: Apache-2.0
"""torch's pools as objects: which there are, what each says of itself, and the few things one may do to it.

A pool object is passed around as `Any`: it is a `SubprocPool` (the sidecar kind) or a
`ProcessPoolExecutor` (start methods fork and spawn). Nothing here imports torch unless it says so.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pytest_compilepool.torch_compat.kernels import source_key

_ASYNC = "torch._inductor.async_compile"


@dataclass(frozen=True)
class PoolRef:
    """One pool that torch has made.

    kind: `compile` (sidecar and workers), `executor` (fork or spawn workers of this process),
    `fx_compile`, `autotune`, `precompile_threads`, `cpp_threads`. object: torch's. pid: of the
    sidecar or the one process, None for threads and for pools whose process has not started.
    processes: configured. memoised: torch hands this very one out again.
    """

    kind: str
    object: Any
    pid: int | None
    processes: int | None
    made_by: str
    memoised: bool

    @property
    def owns_processes(self) -> bool:
        """Whether this kind consists of processes rather than of threads."""
        return not self.kind.endswith("_threads")


def async_compile() -> Any | None:
    """torch's module, or None where nobody has imported it (or is just about to)."""
    module = sys.modules.get(_ASYNC)
    # In the middle of its own import it is there and holds nothing yet.
    return module if hasattr(module, "AsyncCompile") else None


def cached(function: Any) -> Any | None:
    """What an `lru_cache`d function without arguments has made, or None; never makes it."""
    info = getattr(function, "cache_info", None)
    return function() if info is not None and info().currsize else None


def memoised_pool() -> Any | None:
    """The pool that torch would use for the next kernel, or None where it would make a new one."""
    module = async_compile()
    return None if module is None else cached(module.AsyncCompile.process_pool)


OWNER = "_compilepool_facade"  # set on torch's object: the facade that it belongs to


def has_owner(pool: Any) -> bool:
    """Whether this pool belongs to a facade of this package."""
    return getattr(pool, OWNER, None) is not None


def registered_pools() -> list[Any]:
    """torch's own list of the pools that it will shut down at exit."""
    return list(getattr(async_compile(), "_pool_set", ()))


def live_pools() -> list[PoolRef]:
    """Every pool of this process: in torch's registry, memoised, and those that no registry knows."""
    memoised = memoised_pool()
    objects = registered_pools()
    if memoised is not None and not any(pool is memoised for pool in objects):
        objects.append(memoised)
    found = [_reference(pool, pool is memoised) for pool in objects]
    found += [_plain("fx_compile", pool) for pool in _fx_pools()]
    found += [_plain("autotune", pool) for pool in _autotune_pools()]
    threads = {
        "precompile_threads": _singleton("torch._inductor.autotune_process", "PrecompileThreadPool"),
        "cpp_threads": cached(getattr(getattr(async_compile(), "AsyncCompile", None), "pool", None)),
    }
    found += [_plain(kind, pool) for kind, pool in threads.items() if pool is not None]
    return found


def _reference(pool: Any, memoised: bool) -> PoolRef:
    kinds = {is_sidecar_pool(pool): "compile", hasattr(pool, "_processes"): "executor"}
    return PoolRef(
        kinds.get(True, "triton_threads"),
        pool,
        sidecar_pid(pool),
        configured_processes(pool),
        made_by(pool),
        memoised,
    )


def _plain(kind: str, pool: Any) -> PoolRef:
    return PoolRef(kind, pool, sidecar_pid(pool), configured_processes(pool), made_by(pool), False)


def _fx_pools() -> list[Any]:
    owner = getattr(sys.modules.get("torch._inductor.compile_fx_subproc"), "_SubprocessFxCompile", None)
    pool = cached(getattr(owner, "process_pool", None))
    return [] if pool is None else [pool]


def _autotune_pools() -> list[Any]:
    name = "torch._inductor.autotune_process"
    found = [
        _singleton(name, "AutotuneProcessPool"),
        cached(getattr(sys.modules.get(name), "get_tuning_process_pool", None)),
        cached(getattr(sys.modules.get(name), "get_tuning_thread_pool", None)),
    ]
    return [pool for pool in found if pool is not None]


def _singleton(module: str, name: str) -> Any | None:
    return getattr(getattr(sys.modules.get(module), name, None), "_instance", None)


def is_sidecar_pool(pool: Any) -> bool:
    """Whether this pool has a sidecar (start method `subprocess`)."""
    return hasattr(pool, "read_pipe") and hasattr(pool, "process")


def sidecar_pid(pool: Any) -> int | None:
    """Pid of the sidecar, or None."""
    pid = getattr(getattr(pool, "process", None), "pid", None)
    return pid if isinstance(pid, int) else None


def sidecar_exit(pool: Any) -> int | None:
    """The sidecar's exit status as Popen gives it (negative: a signal), or None while it runs."""
    code = pool.process.poll()
    return None if code is None else int(code)


def await_sidecar_exit(pool: Any, timeout: float) -> int | None:
    """The same after at most `timeout` seconds of waiting: a process closes its pipes before it is gone."""
    try:
        return int(pool.process.wait(timeout))
    except subprocess.TimeoutExpired:
        return None


def sidecar_arguments(pool: Any) -> list[str]:
    """The command line that the sidecar was started with."""
    return [str(part) for part in getattr(getattr(pool, "process", None), "args", ())]


def argument(pool: Any, name: str) -> str | None:
    """One `--name=value` of the sidecar's command line."""
    prefix = f"--{name}="
    return next((a[len(prefix) :] for a in sidecar_arguments(pool) if a.startswith(prefix)), None)


def configured_processes(pool: Any) -> int | None:
    """How many workers this pool is meant to have."""
    text = argument(pool, "workers")
    if text is not None and text.isdigit():
        return int(text)
    number = getattr(pool, "_max_workers", None)
    return number if isinstance(number, int) else None


def made_by(pool: Any) -> str:
    """Who made it, where a CreationWatch saw that; else an empty text."""
    return str(getattr(pool, "_compilepool_made_by", ""))


def is_running(pool: Any) -> bool:
    """What torch's own object says: open for jobs or not."""
    if is_sidecar_pool(pool):
        return bool(getattr(pool, "running", False))
    return not getattr(pool, "_shutdown_thread", getattr(pool, "_shutdown", False)) and not getattr(
        pool, "_broken", False
    )


def was_shut_down(pool: Any) -> bool:
    """Whether somebody called `shutdown()`: the only thing that closes the pipe to the sidecar."""
    return is_sidecar_pool(pool) and bool(pool.write_pipe.closed)


def quiesce_was_sent(pool: Any) -> bool | None:
    """Whether torch holds that it sent a quiesce and no job since; None where it keeps no record (2.9)."""
    if not hasattr(pool, "quiesce_waitcounter"):
        return None
    return pool.quiesce_waitcounter is not None


def executor_pids(pool: Any) -> list[int]:
    """Pids of the workers of a fork or spawn pool; [] for the sidecar kind."""
    return [pid for pid in (getattr(pool, "_processes", None) or {}) if isinstance(pid, int)]


def pending_jobs(pool: Any) -> dict[int, Future[Any]]:
    """Jobs that were sent and have no result yet, by torch's number."""
    if hasattr(pool, "pending_jobs"):
        return {number: job.future for number, job in list(pool.pending_jobs.items())}
    if hasattr(pool, "pending_futures"):
        return dict(list(pool.pending_futures.items()))
    work = getattr(pool, "_pending_work_items", None) or {}
    return {number: item.future for number, item in list(work.items())}


def kernel_of_job(args: tuple[Any, ...]) -> tuple[str, str]:
    """Name and `source_key` of the Triton kernel that a job of torch's compiles; empty texts for any other job.

    args: of the job. torch sends `partial(_load_triton_kernel_from_source, name, source)` (2.8 to 2.15).
    """
    load = args[0] if args else None
    function, given = getattr(load, "func", None), list(getattr(load, "args", ()))
    if getattr(function, "__name__", "") != "_load_triton_kernel_from_source" or len(given) < 2:
        return "", ""
    return str(given[0]), source_key(str(given[1]))


def fail_pending(pool: Any, error: BaseException) -> int:
    """Close a sidecar pool whose sidecar is dead: every waiting job gets `error`. Returns how many.

    torch 2.8 to 2.13 leaves them waiting for ever; later ones get there by end-of-file, with less to say.
    """
    # A callback that submits holds this lock for ever on torch <= 2.14: rather unlocked than never.
    locked = pool.futures_lock.acquire(timeout=1.0)
    try:
        pool.running = False
        kept = pool.pending_jobs if hasattr(pool, "pending_jobs") else pool.pending_futures
        jobs = pending_jobs(pool)
        kept.clear()
    finally:
        if locked:
            pool.futures_lock.release()
    for future in jobs.values():
        if not future.done():
            future.set_exception(error)
    return len(jobs)


def explain_errors(pool: Any, explain: Callable[[BaseException], BaseException]) -> None:
    """Let `explain` say what is raised when something cannot be sent to the sidecar; on this one object.

    explain: gives the error for the one that torch raised: the same one, or one that says more.
    """
    # Everything goes through `_send` since torch 2.9; 2.8 has but `submit`, and that of 2.15 looks for itself
    # whether the pool is open before it sends anything.
    for name in ("_send", "submit"):
        if hasattr(pool, name):
            setattr(pool, name, _explained(getattr(pool, name), explain))


def _explained(
    function: Callable[..., Any], explain: Callable[[BaseException], BaseException]
) -> Callable[..., Any]:
    """`function`, raising what `explain` makes of its errors."""

    def explained(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            better = explain(error)
            if better is error:
                raise
            raise better from error

    return explained


def join_reader(pool: Any, timeout: float) -> None:
    """Wait at most `timeout` seconds for torch's reader thread to end; in that thread itself, not at all."""
    if pool.read_thread is not threading.current_thread():
        pool.read_thread.join(timeout)


def sidecar_ends(pool: Any) -> list[int]:
    """Descriptors of this process that are still copies of the sidecar's pipe ends (torch 2.8 to 2.13)."""
    found = []
    for name, ours in (("read-fd", "write_pipe"), ("write-fd", "read_pipe")):
        text, pipe = argument(pool, name), getattr(pool, ours, None)
        if text is None or pipe is None or pipe.closed:
            continue
        try:
            # The number may be somebody else's by now: it is ours only if it is the same pipe.
            theirs, mine = os.fstat(int(text)), os.fstat(pipe.fileno())
        except (OSError, ValueError):
            continue
        if stat.S_ISFIFO(theirs.st_mode) and (theirs.st_ino, theirs.st_dev) == (mine.st_ino, mine.st_dev):
            found.append(int(text))
    return found


def close_sidecar_ends(pool: Any) -> None:
    """Close those copies, as torch 2.14 does: two descriptors less, and a dead sidecar means end-of-file."""
    for fd in sidecar_ends(pool):
        os.close(fd)


def pool_fds(pool: Any) -> set[int]:
    """File descriptors of this process that belong to a sidecar pool; of other kinds none can be told."""
    if not is_sidecar_pool(pool):
        return set()
    found = set(sidecar_ends(pool))
    for name in ("read_pipe", "write_pipe", "log_file"):
        file = getattr(pool, name, None)
        if file is not None and not file.closed:
            found.add(file.fileno())
    return found


def pool_threads(pool: Any) -> set[int]:
    """Identifiers of the threads of this process that belong to a pool."""
    timer = getattr(pool, "timer", None)
    threads = [
        getattr(pool, "read_thread", None),
        getattr(pool, "health_thread", None),
        getattr(timer, "background_thread", None),
        getattr(pool, "_executor_manager_thread", None),
        *(getattr(pool, "_threads", None) or ()),
    ]
    return {thread.ident for thread in threads if thread is not None and thread.ident is not None}
