# SPDX-License-Identifier: Apache-2.0
"""What Inductor asks to be compiled, and whom: each Triton kernel and C++ kernel, the parent or the pool."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_compilepool.torch_compat.probe import inductor

CPP = ("cpp", "cpp_pybinding")


@dataclass(frozen=True)
class Asked:
    """One kernel that Inductor asked for.

    kind: triton or cpp; name: of the kernel; source: `source_key` of its text; route: `pool` (a job was sent),
    `parent` (compiled, or loaded from a cache, in this process before the call returned), `threads` (a thread of
    this process), `failed` (the call raised).
    """

    kind: str
    name: str
    source: str
    route: str


def source_key(source: str) -> str:
    """A kernel's source as a short name: the same text gives the same, white space at the ends of lines aside.

    With a pool a kernel is sent off as it was generated, and asked for again as it stands in the module, where
    blank lines are blank (seen with templates, torch 2.13).
    """
    lines = [line.rstrip() for line in source.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class AskedWatch:
    """Notes every kernel that this process asks for, from `start()` to `stop()`. Imports torch's Inductor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._undo: list[Callable[[], None]] = []
        self.cpp_threads: set[str] = set()

    @property
    def asked(self) -> list[Asked]:
        """What was asked for so far, in order; in the pool's case a kernel is asked for twice (2.7 and later)."""
        with self._lock:
            return list(self._asked)

    def start(self) -> None:
        """Begin."""
        owner = inductor("async_compile").AsyncCompile
        autotuner = inductor("runtime.triton_heuristics").CachingAutotuner
        self._wrap(owner, "triton", lambda result: "parent" if isinstance(result, autotuner) else "pool")
        for name in CPP:
            # A future where threads are at work, the loaded function where this one was.
            self._wrap(owner, name, lambda result: "threads" if hasattr(result, "result") else "parent")
        self._wrap_submit(owner)

    def stop(self) -> None:
        """End; may be called twice."""
        while self._undo:
            self._undo.pop()()

    def _wrap(self, owner: Any, name: str, route_of: Callable[[Any], str]) -> None:
        original = getattr(owner, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def asking(compiler: Any, *args: Any, **kwargs: Any) -> Any:
            route = "failed"
            try:
                result = original(compiler, *args, **kwargs)
                route = route_of(result)
                return result
            finally:
                self._note(name, args, kwargs, route)

        setattr(owner, name, asking)
        self._undo.append(lambda: setattr(owner, name, original))

    def _note(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], route: str) -> None:
        source = kwargs.get("source_code", args[-1] if method in CPP and args else "")
        if method == "triton":
            source = kwargs.get("source_code", args[1] if len(args) > 1 else "")
            name = str(kwargs.get("kernel_name", args[0] if args else ""))
        else:
            name = "cpp"
        kind = "cpp" if method in CPP else "triton"
        with self._lock:
            self._asked.append(Asked(kind, name, source_key(str(source)), route))

    def _wrap_submit(self, owner: Any) -> None:
        """C++ compilers run in threads of this process: which, is seen from within."""
        before = owner.__dict__.get("submit")
        original = getattr(owner, "submit", None)
        if before is None or original is None:
            return

        def submit(cls: Any, task: Callable[[], Any]) -> Any:
            def seen() -> Any:
                with self._lock:
                    self.cpp_threads.add(threading.current_thread().name)
                return task()

            return original(seen)

        owner.submit = classmethod(submit)
        self._undo.append(lambda: setattr(owner, "submit", before))


def parallel_feature() -> list[bool]:
    """torch's own witness, one for each compile whose metrics it still has: whether the pool was used.

    `feature_usage["parallel_compile_post_warmup"]` of torch 2.7 and later; [] without it.
    """
    import sys

    utils = sys.modules.get("torch._dynamo.utils")
    read = getattr(utils, "get_compilation_metrics", None)
    found = []
    for entry in read() if read is not None else ():
        used = (getattr(entry, "feature_usage", None) or {}).get("parallel_compile_post_warmup")
        if used is not None:
            found.append(bool(used))
    return found
