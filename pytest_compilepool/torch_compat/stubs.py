# SPDX-License-Identifier: Apache-2.0
"""Attributes and entries that are replaced for a while, each of which is put back as the very object that it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

_MISSING = object()


class Stubs:
    """Attributes that were replaced, so that each can be put back as it was."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any, *, only_if_there: bool = False) -> None:
        """Replace an attribute; a class's is put back as the very object (static or class method) that it was."""
        before = (
            owner.__dict__.get(name, _MISSING) if isinstance(owner, type) else getattr(owner, name, _MISSING)
        )
        if before is _MISSING and only_if_there:
            return
        setattr(owner, name, value)
        self._undo.append(lambda: _put_back(owner, name, before))

    def item(self, mapping: Any, key: Any, value: Any) -> None:
        """Replace an entry of a dict."""
        before = mapping.get(key, _MISSING)
        mapping[key] = value

        def undo() -> None:
            if before is _MISSING:
                mapping.pop(key, None)
            else:
                mapping[key] = before

        self._undo.append(undo)

    def later(self, undo: Callable[[], None]) -> None:
        """Something else to be undone."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Put everything back, the last first."""
        while self._undo:
            self._undo.pop()()


def _put_back(owner: Any, name: str, before: Any) -> None:
    if before is _MISSING:
        with contextlib.suppress(AttributeError):
            delattr(owner, name)
    else:
        setattr(owner, name, before)
