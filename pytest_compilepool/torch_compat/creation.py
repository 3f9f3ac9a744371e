# SPDX-License-Identifier: Apache-2.0
"""Being told when a pool is made, by whomever, without importing torch to find out.

Where torch's modules are loaded already, the classes that start processes get a small wrapper
around `__init__`; where they are not, a finder at the head of `sys.meta_path` puts the wrapper on
right after they are imported. `CreationWatch.stop()` takes all of it off again.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

from pytest_compilepool.torch_compat.afterimport import AfterImport

_HERE = __name__.rpartition(".")[0]

# module -> {class: kind of pool}. Each of these classes starts processes when it is made or first used.
_MAKERS = {
    "torch._inductor.compile_worker.subproc_pool": {"SubprocPool": "compile"},
    "torch._inductor.compile_worker.tracked_process_pool": {"TrackedProcessPoolExecutor": "executor"},
    "torch._inductor.autotune_process": {
        "AutotuneProcessPool": "autotune",
        "TuningProcess": "autotune",
    },
}


# Not a dataclass: every session loads this file, and making one takes longer than loading the rest of it.
class Creator:
    """Who made a pool: the innermost frame outside torch and this package, and the whole stack as text."""

    def __init__(self, where: str, stack: str) -> None:
        self.where = where
        self.stack = stack


class _Listener(Protocol):
    def before(self, kind: str, creator: Creator) -> None: ...
    def after(self, kind: str, pool: Any, creator: Creator) -> None: ...
    def imported(self, module: str) -> None: ...


class CreationWatch:
    """Tells a listener of every pool that this process makes, from `start()` until `stop()`.

    listener: `before(kind, creator)` runs first and may raise to forbid it; `after(kind, pool, creator)`
    runs when the pool stands. Both run in the thread that makes the pool. `imported(name)` runs when one of
    torch's modules that make pools has just been imported, so before the first pool can be made.
    """

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        self._undo: list[Callable[[], None]] = []
        self._finder: AfterImport | None = None

    def start(self) -> None:
        """Begin. Modules that are loaded are wrapped now, the others when they are imported."""
        missing: dict[str, Callable[[ModuleType], None]] = {}
        for name, classes in _MAKERS.items():
            if name in sys.modules:
                self._wrap_module(sys.modules[name], classes)
            else:
                missing[name] = functools.partial(self._imported, classes=classes)
        if missing:
            self._finder = AfterImport(missing)
            sys.meta_path.insert(0, self._finder)

    def stop(self) -> None:
        """End: every wrapper and the finder are removed. May be called twice."""
        if self._finder is not None and self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._finder = None
        while self._undo:
            self._undo.pop()()

    def _imported(self, module: ModuleType, classes: dict[str, str]) -> None:
        self._wrap_module(module, classes)
        self._listener.imported(module.__name__)

    def _wrap_module(self, module: ModuleType, classes: dict[str, str]) -> None:
        for name, kind in classes.items():
            target = getattr(module, name, None)
            if target is not None and not getattr(target.__init__, "_compilepool_watch", False):
                self._wrap_class(target, kind)

    def _wrap_class(self, target: type, kind: str) -> None:
        original = target.__init__  # type: ignore[misc]
        listener = self._listener

        @functools.wraps(original)
        def __init__(pool: Any, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            creator = find_creator()
            listener.before(kind, creator)
            original(pool, *args, **kwargs)
            pool._compilepool_made_by = creator.where
            listener.after(kind, pool, creator)

        __init__._compilepool_watch = True  # type: ignore[attr-defined]
        target.__init__ = __init__  # type: ignore[misc]

        def undo() -> None:
            if target.__init__ is __init__:  # type: ignore[misc]
                target.__init__ = original  # type: ignore[misc]

        self._undo.append(undo)


def find_creator() -> Creator:
    """Who is calling: see Creator. Passes over frames of torch, of this package and of the import system."""
    stack = traceback.extract_stack()[:-2]
    frame = sys._getframe(1)
    where = "unknown"
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("torch", "importlib", "functools", "contextlib") and not (
            module == _HERE or module.startswith("pytest_compilepool.")
        ):
            where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
            break
        if frame.f_back is None:
            break
        frame = frame.f_back
    return Creator(where, "".join(traceback.format_list(stack)))
