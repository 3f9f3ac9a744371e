# SPDX-License-Identifier: Apache-2.0
"""Being told when a module has been imported, without importing it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls back once after one of the wanted modules has been executed; finds nothing by itself.

    Put it at the head of `sys.meta_path`. wanted: module name -> what to call with the module.
    """

    def __init__(self, wanted: dict[str, Callable[[ModuleType], None]]) -> None:
        self._wanted = wanted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        callback = self._wanted.get(fullname)
        if callback is None:
            return None
        spec: importlib.machinery.ModuleSpec | None = None
        for finder in self._others():
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                break
        if spec is None:
            return None
        loader: Any = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return spec

        def exec_module(module: ModuleType) -> None:
            # The loader is this spec's own: put it back before anything can look at it again. Where somebody
            # else waits for the same module it has been put back already.
            vars(loader).pop("exec_module", None)
            execute(module)
            if self._wanted.pop(fullname, None) is not None:
                callback(module)

        loader.exec_module = exec_module
        return spec

    def _others(self) -> list[Any]:
        """The finders after this one: two that wait for the same module must not ask each other for ever."""
        finders: list[Any] = list(sys.meta_path)
        return finders[finders.index(self) + 1 :] if self in finders else finders
