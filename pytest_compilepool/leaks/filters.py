# SPDX-License-Identifier: Apache-2.0
"""Warnings filters."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from pytest_compilepool.leaks.base import MISSING, Change, LeakChecker
from pytest_compilepool.records import Leak, Snapshot

_MODULES = "modules"


class WarningsChecker(LeakChecker):
    """The entries of `warnings.filters`. key: (entry, how many of the same came before it); value: its place.

    restored_by_pytest: pytest's own warnings plugin is active and puts them back after each test; then
    there is nothing to measure. Where a module was imported in between nothing is judged: modules add
    filters of their own when they are imported, and these are meant to stay.
    """

    name: ClassVar[str] = "warnings"
    judges_values: ClassVar[bool] = False
    settles: ClassVar[bool] = False

    def __init__(self, restored_by_pytest: bool) -> None:
        self._restored_by_pytest = restored_by_pytest

    def measure(self) -> Snapshot | None:
        if self._restored_by_pytest:
            return None
        found: Snapshot = {_MODULES: frozenset(sys.modules)}
        seen: Counter[Any] = Counter()
        for place, entry in enumerate(warnings.filters):
            found[entry, seen[entry]] = place
            seen[entry] += 1
        return found

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        if after[_MODULES] - before[_MODULES]:
            return
        for key, new in after.items():
            if key not in before:
                yield key, MISSING, new
        for key, old in before.items():
            if key not in after:
                yield key, old, MISSING

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        assert isinstance(key, tuple)
        entry = key[0]
        action, message, category, module, line = entry
        rule = ":".join(_text(part) for part in (action, message, category.__name__, module, line or ""))
        before, after = ("no such filter" if place is MISSING else rule.rstrip(":") for place in (old, new))
        return Leak(self.name, f"{action}:{category.__name__}", before, after, handle=(entry, old))

    def restore(self, leaks: Sequence[Leak]) -> None:
        entries: list[Any] = list(warnings.filters)
        added = [entry for entry, place in (leak.handle for leak in leaks) if place is MISSING]
        removed = [(place, entry) for entry, place in (leak.handle for leak in leaks) if place is not MISSING]
        for entry in added:
            if entry in entries:
                entries.remove(entry)
        # From the front on, so that each finds its old place.
        for place, entry in sorted(removed, key=lambda pair: pair[0]):
            entries.insert(place, entry)
        warnings.filters[:] = entries  # type: ignore[index]
        # Entering and leaving this makes `warnings` forget what it has decided by the filters of before.
        with warnings.catch_warnings():
            pass


def _text(part: Any) -> str:
    return "" if part is None else str(getattr(part, "pattern", part))
