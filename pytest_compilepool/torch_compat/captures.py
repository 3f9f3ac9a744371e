# SPDX-License-Identifier: Apache-2.0
"""Being told of every graph capture of this process, without importing torch and without a call to a GPU.

torch's graph classes get a small wrapper around `capture_begin` and `capture_end`; where their module is not
loaded yet, right after it is imported. `torch.cuda.graph`, CUDA graph trees and vLLM all come through there.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

from pytest_compilepool.torch_compat.afterimport import AfterImport

# module -> the graph class in it. ROCm uses the first; not every torch has the others.
_CLASSES = {
    "torch.cuda.graphs": "CUDAGraph",
    "torch.accelerator.graphs": "Graph",
    "torch.xpu.graphs": "XPUGraph",
    "torch.mtia.mtia_graph": "MTIAGraph",
}
# Frames that are never the reason for a capture.
_PASSED = ("torch", "contextlib", "functools")
_HEARERS = "_compilepool_hearers"

After = Callable[[BaseException | None], None]
"""What is called when the wrapped call is over, with what it raised or None."""

Hearer = Callable[[Any], After]
"""What is called before the wrapped call, with the graph."""


class Listener(Protocol):
    """Who is told; each in the thread that captures. What `begins` returns is the token of that capture."""

    def begins(self) -> Any: ...
    def began(self, token: Any, error: BaseException | None) -> None: ...
    def ends(self, token: Any) -> None: ...
    def ended(self, token: Any, error: BaseException | None) -> None: ...


class CaptureWatch:
    """Tells a listener of every capture, from `start()` until `stop()`.

    listener: `begins()` runs before the capture, `began(token, error)` when it is under way, or has failed
    with that error; `ends(token)` runs before its end, `ended(token, error)` after. What they raise goes into
    the capture: they should raise nothing. A `capture_begin` that calls another one is one capture.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._undo: list[Callable[[], None]] = []
        self._finder: AfterImport | None = None
        self._on = False
        self._open: dict[int, Any] = {}
        self._local = threading.local()

    def start(self) -> None:
        """Begin: classes that are loaded are watched now, the others when they are imported. May be called twice."""
        if self._on:
            return
        self._on = True
        missing: dict[str, Callable[[ModuleType], None]] = {}
        for name in _CLASSES:
            if name in sys.modules:
                self._watch_module(sys.modules[name])
            else:
                missing[name] = self._imported
        if missing:
            self._finder = AfterImport(missing)
            sys.meta_path.insert(0, self._finder)

    def watch(self, owner: Any, begin: str = "capture_begin", end: str | None = "capture_end") -> None:
        """Watch somebody else's captures, too. owner: a class, an object or a module.

        begin, end: names of the functions in it; end may be None where there is none. Raises ValueError with
        one sentence if one of them is not there or cannot be replaced, and then watches neither.
        """
        for name in (begin,) if end is None else (begin, end):
            if not isinstance(name, str) or not name or not callable(getattr(owner, name, None)):
                raise ValueError(
                    f"watch({owner!r}): it has no function {name!r}; allowed: a class, an object or a module with "
                    "the functions that begin and end a capture (end=None where there is none)"
                )
        undo = [_hear(owner, begin, self._begin)]
        if end is not None:
            try:
                undo.append(_hear(owner, end, self._end))
            except ValueError:
                undo[0]()
                raise
        self._undo += undo

    def stop(self) -> None:
        """End: every wrapper and the finder are removed. May be called twice."""
        if self._finder is not None and self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._finder, self._on = None, False
        while self._undo:
            self._undo.pop()()

    def _imported(self, module: ModuleType) -> None:
        if self._on:  # else stopped while the import was under way
            self._watch_module(module)

    def _watch_module(self, module: ModuleType) -> None:
        graph = getattr(module, _CLASSES[module.__name__], None)
        if hasattr(graph, "capture_begin") and hasattr(graph, "capture_end"):
            self.watch(graph)

    def _begin(self, graph: Any) -> After:
        if getattr(self._local, "beginning", False):
            return _nothing
        self._local.beginning = True
        try:
            token = self._listener.begins()
        except BaseException:
            self._local.beginning = False
            raise

        def after(error: BaseException | None) -> None:
            self._local.beginning = False
            if error is None:
                # By number: a graph that its owner drops in the middle must not live on here.
                self._open[id(graph)] = token
            self._listener.began(token, error)

        return after

    def _end(self, graph: Any) -> After:
        # Taken out by the outermost call: an inner one finds nothing.
        token = self._open.pop(id(graph), None)
        if token is None:
            return _nothing
        self._listener.ends(token)
        return lambda error: self._listener.ended(token, error)


def _nothing(error: BaseException | None) -> None:
    """A capture that is told of already."""


def _hear(owner: Any, name: str, hearer: Hearer) -> Callable[[], None]:
    """Have `hearer` called around one function of `owner`. Returns what undoes that. Raises ValueError.

    One wrapper serves all hearers, and goes with the last: so they may come and go in any order.
    """
    own = getattr(owner, "__dict__", {})
    before = own.get(name)
    # A mock has every attribute that one asks for.
    put = before if isinstance(getattr(before, _HEARERS, None), list) else _put_wrapper(owner, name)
    hearers: list[Hearer] = getattr(put, _HEARERS)
    hearers.append(hearer)

    def undo() -> None:
        hearers.remove(hearer)
        # Somebody who came later has ours in his hands: it goes on passing calls through.
        if not hearers and getattr(owner, "__dict__", {}).get(name) is put:
            _put_back(owner, name, put)

    return undo


def _put_wrapper(owner: Any, name: str) -> Any:
    static = inspect.getattr_static(owner, name, None)
    original = getattr(owner, name)
    # Only what a class hands out as a method is called with the graph itself.
    bound = (
        isinstance(owner, type)
        and not isinstance(static, (staticmethod, classmethod))
        and hasattr(static, "__get__")
    )
    hearers: list[Hearer] = []

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        graph = args[0] if bound and args else owner
        after = [hearer(graph) for hearer in tuple(hearers)]
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            for tell in after:
                tell(error)
            raise
        for tell in after:
            tell(None)
        return result

    put: Any = staticmethod(wrapper) if isinstance(owner, type) and not bound else wrapper
    setattr(put, _HEARERS, hearers)
    # Nothing of the owner's own: it was inherited, unless even its classes do not have it (a mock).
    put._compilepool_before = getattr(owner, "__dict__", {}).get(name, original if static is None else None)
    try:
        setattr(owner, name, put)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"watch({owner!r}): its {name!r} cannot be replaced ({error}); allowed: a class, an object or a "
            "module written in Python, or a subclass of it"
        ) from None
    return put


def _put_back(owner: Any, name: str, put: Any) -> None:
    if put._compilepool_before is None:
        delattr(owner, name)
    else:
        setattr(owner, name, put._compilepool_before)


def find_callers(besides: str) -> tuple[str, tuple[traceback.FrameSummary, ...]]:
    """Who captures. besides: the name of a module whose frames are left out, as this one's are.

    Returns the innermost frame outside torch as `file:line in function`, and all frames, outermost first. A
    frame reads its source line when somebody wants to see it: that can take longer than a look may.
    """
    frame = sys._getframe(1)
    where, frames = "", []
    while frame is not None:
        module, code = str(frame.f_globals.get("__name__", "")), frame.f_code
        if module not in (__name__, besides):
            if not where and module.partition(".")[0] not in _PASSED:
                where = f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
            frames.append(
                traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name, lookup_line=False)
            )
        if frame.f_back is None:
            break
        frame = frame.f_back
    return where or "unknown", tuple(reversed(frames))
