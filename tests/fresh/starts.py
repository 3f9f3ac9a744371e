# SPDX-License-Identifier: Apache-2.0
"""What the tests run in fresh interpreters."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any


def model(x: Any) -> Any:
    import torch

    return torch.compile(lambda x: (x.sin() + 1).sum())(x)


def whoami() -> dict[str, Any]:
    import sys

    return {"pid": os.getpid(), "parent": os.getppid(), "path": list(sys.path), "main": sys.argv[0]}


def uses_the_pool() -> list[int]:
    from torch._inductor.async_compile import AsyncCompile

    from pytest_compilepool.workloads import jobs

    pool = AsyncCompile.process_pool()
    return sorted({pool.submit(jobs.whoami).result(30)[0] for _ in range(8)})


def environment(name: str) -> str | None:
    return os.environ.get(name)


def leaves_a_child_behind(path: str) -> int:
    from pytest_compilepool.workloads import jobs

    return jobs.spawn_grandchild(path, 600.0)


def leaves_a_dead_child_behind() -> int:
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        os.sched_yield()
    child.returncode = 0  # so that nobody here waits for it
    return child.pid


def forks_and_comes_back() -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        os.fork()
    return os.getpid()


def forks_and_leaves(how: str) -> int:
    """The child ends in another way than by coming back."""
    import sys
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(0)
        raise ValueError("planted in the child")
    os.waitpid(pid, 0)
    return os.getpid()


def kills_the_pool(who: str) -> int:
    import psutil

    (sidecar,) = (child for child in psutil.Process().children() if "--workers" in " ".join(child.cmdline()))
    ended = [sidecar] if who == "sidecar" else sidecar.children()
    for process in ended:
        process.kill()
    psutil.wait_procs(ended, timeout=30)
    return len(ended)


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raises_what_cannot_be_said() -> None:
    raise Unsayable


def writes_again(x: Any) -> Any:
    """A library below the caches, every time anew; and one graph that a warm start loads."""
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    (folder / "of_mine.so").write_bytes(b"as before")
    return model(x)


def never_exits() -> int:
    """A handler that runs after the answer was written waits for ever."""
    import atexit
    import threading

    atexit.register(threading.Event().wait)
    return 1


def waits_for_ever(path: str) -> None:
    import threading

    Path(path).write_text(str(os.getpid()))
    threading.Event().wait()


def one_with_caches_and_one_without(x: Any) -> Any:
    import torch
    from torch._inductor import config

    y = torch.compile(torch.sin)(x)
    with config.patch(force_disable_caches=True):
        return torch.compile(torch.cos)(y)


def moves_the_cache(path: str) -> int:
    os.environ["TRITON_CACHE_DIR"] = path
    return 1


def moves_the_cache_within() -> int:
    """As vLLM does."""
    os.environ["TRITON_CACHE_DIR"] = os.path.join(os.environ["VLLM_CACHE_ROOT"], "triton")
    return 1


def clears_the_counters(x: Any) -> Any:
    import torch._dynamo.utils

    y = model(x)
    torch._dynamo.utils.counters.clear()
    return y


def raises_far_away() -> None:
    raise KeyError("planted far away")


def calls_it() -> None:
    raises_far_away()


def give_back(value: Any, *, doubled: bool = False) -> Any:
    return [value, value] if doubled else value


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def inner() -> Any:
        return function()

    return inner


def behind_a_decorator() -> int:
    return 1


original = behind_a_decorator
behind_a_decorator = decorated(behind_a_decorator)


def ends_the_pool(how: str) -> str:
    """As torch lets one: both are no fault."""
    from torch._inductor import async_compile

    pool = async_compile.AsyncCompile.process_pool()
    if how == "quiesce":
        pool.quiesce()
    else:
        async_compile.shutdown_compile_workers()
    return how
