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

    def is_over(self) -> bool:
        """Whether it wants to be asked no more; another one is asked then, or nobody."""

    def coming(self) -> bool:
        """A compile has begun that may want kernels. Returns at once: whether workers are to be woken for it now."""

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


_lock = threading.RLock()
_keepers: list[Keeper] = []  # the newest last
_undo: list[Callable[[], None]] = []
_told = threading.local()  # what `triton` was told in this thread, while it runs


class Gate:
    """From `install()` to `remove()` its keeper may be asked. The newest that is not over is: torch holds its pool.

    Three methods of torch's `AsyncCompile` are wrapped, once, while there is a keeper. `wakeup`: the keeper learns of it
    first; `use_process_pool`: not where the keeper says no; `triton`: a kernel that the pool owes is compiled in this
    process, where an error of the kernel itself shows as without a pool.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def install(self) -> None:
        """Begin. Imports torch's `async_compile`."""
        owner = inductor("async_compile").AsyncCompile
        with _lock:
            _keepers.append(self._keeper)
            if not _undo:
                _wrap(owner)

    def remove(self) -> None:
        """End: torch's own methods are back with the last keeper. May be called twice."""
        with _lock:
            _keepers[:] = [one for one in _keepers if one is not self._keeper]
            while _undo and not _keepers:
                _undo.pop()()


def _asked() -> Keeper | None:
    return next((one for one in reversed(_keepers) if not one.is_over()), None)


def _wrap(owner: Any) -> None:
    wakeup, use, triton = owner.wakeup, owner.use_process_pool, owner.triton

    def gated_wakeup(_: Any) -> None:
        keeper = _asked()
        if keeper is None:
            wakeup()
            return
        if keeper.coming() and keeper.is_open():
            # A pool that dies just now is met again, and looked after, by the first kernel.
            with contextlib.suppress(Exception):
                wakeup()

    def gated_use(_: Any) -> bool:
        told, keeper = getattr(_told, "open", None), _asked()
        may = told if told is not None else keeper is None or keeper.is_open()
        return bool(may and use())

    @functools.wraps(triton)
    def gated_triton(*args: Any, **named: Any) -> Any:
        keeper = _asked()
        if keeper is None:
            return triton(*args, **named)
        return _Passage(keeper, functools.partial(triton, *args, **named), *_named(*args, **named)).kernel()

    _put(owner, "wakeup", classmethod(gated_wakeup))
    _put(owner, "use_process_pool", classmethod(gated_use))
    _put(owner, "triton", gated_triton)


def _put(owner: Any, name: str, method: Any) -> None:
    original = owner.__dict__[name]
    setattr(owner, name, method)

    def undo() -> None:
        if owner.__dict__.get(name) is method:  # else somebody has wrapped it since: theirs stays
            setattr(owner, name, original)

    _undo.append(undo)


class _Passage:
    """One kernel on its way. triton: the call of torch's own method; name, source: of the kernel."""

    def __init__(self, keeper: Keeper, triton: Callable[[], Any], name: str, source: str) -> None:
        self._keeper, self._triton, self._name, self._source = keeper, triton, name, source

    def kernel(self) -> Any:
        """The kernel, or a future for it."""
        if _is_bundled(self._source):
            # A warm start: nothing is compiled, so there is nothing to wait for a pool for.
            made = self._with_word(False)
            self._keeper.compiled(self._name, "cache")
            return made
        if not self._keeper.admit():
            return self._here("process")
        try:
            made = self._with_word(True)
        except Exception as error:  # a pool that cannot be given the job, and nothing else, is its fault
            return self._rescue(error)
        if isinstance(made, inductor("codecache").CodeCacheFuture):
            return _owed(made, self._keeper, self._name, self._rescue)
        self._keeper.compiled(self._name, "process")
        return made

    def _rescue(self, error: BaseException) -> Any:
        made = self._here("rescued")
        self._keeper.failed(self._name, error)
        return made

    def _here(self, where: str) -> Any:
        _forget_promise(self._source)
        made = self._with_word(False)
        self._keeper.compiled(self._name, where)
        return made

    def _with_word(self, is_open: bool) -> Any:
        before = getattr(_told, "open", None)
        _told.open = is_open
        try:
            return self._triton()
        finally:
            _told.open = before


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
