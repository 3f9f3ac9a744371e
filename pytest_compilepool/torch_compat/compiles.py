# SPDX-License-Identifier: Apache-2.0
"""Being told of every Triton compile that this very process does: what a pool was there to take off its hands."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pytest_compilepool.torch_compat.afterimport import AfterImport

_KNOBS = "triton.knobs"


@dataclass(frozen=True)
class TritonCompile:
    """One kernel that Triton was asked for in this process.

    kernel: its name; hash: Triton's name for kernel, options and target; cached: it was found in the cache
    folder, so nothing was compiled; ended: `time.monotonic()`, seconds.
    """

    kernel: str
    hash: str
    cached: bool
    ended: float


class CompileWatch:
    """Listens to Triton in this process from `start()` to `stop()`; imports nothing.

    Uses `triton.knobs.compilation.listener` (Triton 3.4 and later). A listener that somebody else has set is
    called as before, and is there again afterwards. On a Triton that has none, `deaf` says so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[TritonCompile] = []
        self._finder: AfterImport | None = None
        self._undo: Callable[[], None] | None = None
        self.deaf = False

    @property
    def compiles(self) -> list[TritonCompile]:
        """What was seen so far, cache hits included."""
        with self._lock:
            return list(self._seen)

    def start(self) -> None:
        """Begin, now or as soon as Triton is imported."""
        if _KNOBS in sys.modules:
            self._listen(sys.modules[_KNOBS])
        else:
            self._finder = AfterImport({_KNOBS: self._listen})
            sys.meta_path.insert(0, self._finder)

    def stop(self) -> None:
        """End; may be called twice."""
        if self._finder is not None and self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._finder = None
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def _listen(self, knobs: ModuleType) -> None:
        compilation: Any = getattr(knobs, "compilation", None)
        if not hasattr(compilation, "listener"):
            self.deaf = True
            return
        before = compilation.listener
        inherited = "listener" not in vars(compilation)  # it stands in the class, then

        def listener(**told: Any) -> None:
            self._note(told)
            if before is not None:
                before(**told)

        def undo() -> None:
            # Somebody who came later has ours in his hands: it goes on calling who was there before.
            if compilation.listener is not listener:
                return
            if inherited:
                del compilation.listener
            else:
                compilation.listener = before

        compilation.listener = listener
        self._undo = undo

    def _note(self, told: dict[str, Any]) -> None:
        name = getattr(told.get("src"), "name", "") or "unknown"
        metadata = told.get("metadata") or {}
        found = TritonCompile(
            str(name), str(metadata.get("hash", "")), bool(told.get("cache_hit")), time.monotonic()
        )
        with self._lock:
            self._seen.append(found)
