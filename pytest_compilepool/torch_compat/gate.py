# SPDX-License-Identifier: Apache-2.0
"""A gate between torch's compiles and its pool: whoever keeps it is asked before each kernel, and told of failures.

torch asks nobody: a kernel that comes before the pool is ready is silently compiled in the process, one whose
worker dies ends the compile, and a dead pool is handed every kernel that comes after.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Protocol

from pytest_compilepool.torch_compat.probe import inductor


class Keeper(Protocol):
    """Who keeps the gate. None of these may raise."""

    def coming(self) -> None:
        """A compile has begun that may want kernels. Returns at once."""

    def is_open(self) -> bool:
        """Whether a kernel may go to the pool, as it is now. Returns at once."""

    def admit(self) -> bool:
        """The same for the kernel that is next; waits, within a bound, for a pool that is about to be ready."""

    def compiled(self, kernel: str, where: str) -> None:
        """A kernel is there. where: "pool", "process", "rescued" (in the process, since the pool failed) or "cache"."""

    def failed(self, kernel: str, error: BaseException) -> None:
        """The pool did not give that kernel, and this process did."""

    def job_seconds(self) -> float:
        """How long the pool may take for one kernel."""


class Gate:
    """Wraps three methods of torch's `AsyncCompile` from `install()` to `remove()`.

    `wakeup`: the keeper learns of it first; `use_process_pool`: not where the keeper says no; `triton`: a kernel
    that the pool owes is compiled in this process, where an error of the kernel itself shows as without a pool.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._told = threading.local()  # what `triton` was told in this thread, while it runs
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Begin. Imports torch's `async_compile`."""
        owner = inductor("async_compile").AsyncCompile
        wakeup, use, triton = owner.wakeup, owner.use_process_pool, owner.triton
        keeper = self._keeper

        def gated_wakeup(_: Any) -> None:
            keeper.coming()
            if keeper.is_open():
                # A pool that dies just now is met again, and looked after, by the first kernel.
                with contextlib.suppress(Exception):
                    wakeup()

        def gated_use(_: Any) -> bool:
            told = getattr(self._told, "open", None)
            return bool((keeper.is_open() if told is None else told) and use())

        @functools.wraps(triton)
        def gated_triton(*args: Any, **named: Any) -> Any:
            return self._kernel(functools.partial(triton, *args, **named), *_named(*args, **named))

        self._put(owner, "wakeup", classmethod(gated_wakeup))
        self._put(owner, "use_process_pool", classmethod(gated_use))
        self._put(owner, "triton", gated_triton)

    def remove(self) -> None:
        """End: torch's own methods are back. May be called twice."""
        while self._undo:
            self._undo.pop()()

    def _kernel(self, triton: Callable[[], Any], name: str, source: str) -> Any:
        """One call of `triton`: the kernel, or a future for it."""
        if _is_bundled(source):
            # A warm start: nothing is compiled, so there is nothing to wait for a pool for.
            made = self._with_word(False, triton)
            self._keeper.compiled(name, "cache")
            return made
        if not self._keeper.admit():
            return self._here(triton, name, source, "process")
        try:
            made = self._with_word(True, triton)
        except (
            Exception
        ) as error:  # a pool that cannot be given the job, and nothing else, is the pool's fault
            return self._rescue(triton, name, source, error)
        if isinstance(made, inductor("codecache").CodeCacheFuture):
            return _owed(made, self._keeper, name, lambda error: self._rescue(triton, name, source, error))
        self._keeper.compiled(name, "process")
        return made

    def _rescue(self, triton: Callable[[], Any], name: str, source: str, error: BaseException) -> Any:
        made = self._here(triton, name, source, "rescued")
        self._keeper.failed(name, error)
        return made

    def _here(self, triton: Callable[[], Any], name: str, source: str, where: str) -> Any:
        _forget_promise(source)
        made = self._with_word(False, triton)
        self._keeper.compiled(name, where)
        return made

    def _with_word(self, is_open: bool, call: Callable[[], Any]) -> Any:
        before = getattr(self._told, "open", None)
        self._told.open = is_open
        try:
            return call()
        finally:
            self._told.open = before

    def _put(self, owner: Any, name: str, method: Any) -> None:
        original = owner.__dict__[name]
        setattr(owner, name, method)

        def undo() -> None:
            if owner.__dict__.get(name) is method:  # else somebody has wrapped it since: theirs stays
                setattr(owner, name, original)

        self._undo.append(undo)


def _named(_: Any, kernel_name: str, source_code: str, *rest: Any, **named: Any) -> tuple[str, str]:
    """Name and source, under the names that `triton` has for them (2.9 to 2.15)."""
    return kernel_name, source_code


def _is_bundled(source: str) -> bool:
    """Whether torch's table has this kernel ready, from a bundle of an earlier start, rather than owed by the pool."""
    kept = inductor("async_compile").CompiledTritonKernels.get(source)
    return kept is not None and getattr(kept, "future", None) is None


def _forget_promise(source: str) -> None:
    """Take what the pool owes out of torch's table, or this process would wait for it there."""
    table = inductor("async_compile").CompiledTritonKernels
    if table.get(source) is not None:
        table.remove_future(source)


def _owed(made: Any, keeper: Keeper, name: str, rescue: Callable[[BaseException], Any]) -> Any:
    """A future as torch's own for a kernel that the pool owes; what it does not give is rescued."""

    class Owed(inductor("codecache").CodeCacheFuture):  # type: ignore[misc]
        _made: Any = None

        def result(self, timeout: float | None = None) -> Any:
            if self._made is None:
                self._made = self._result(timeout)
            return self._made

        def _result(self, timeout: float | None) -> Any:
            error = _outcome(made.future, min(keeper.job_seconds(), timeout or keeper.job_seconds()))
            if error is not None:
                return rescue(error)
            kernel = made.result()
            keeper.compiled(name, "pool")
            return kernel

    return Owed()


def _outcome(job: Future[Any], seconds: float) -> BaseException | None:
    """Why a job gave nothing, or None where it did."""
    if not wait([job], seconds).done:
        return TimeoutError(f"no worker had it ready within {seconds:g} s")
    if job.cancelled():
        return RuntimeError("the pool was shut down before it was ready")
    return job.exception()
