# SPDX-License-Identifier: Apache-2.0
"""Dynamo's counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks.base import LeakChecker
from pytest_compilepool.records import Leak, Snapshot


class CounterChecker(LeakChecker):
    """Dynamo's counters. key: `aot_autograd.autograd_cache_hit`; value: the number.

    Counters grow with every compile: that is no leak, and they are set back in silence, so that the next
    test counts from where this one did. A counter that is lower than before or gone has been cleared by the
    test, which takes it from whoever counts over several tests: that is reported, one leak for each group.

    report_growth: report growth as well.
    """

    name: ClassVar[str] = "counters"
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __init__(self, report_growth: bool = False) -> None:
        self._report_growth = report_growth

    def measure(self) -> Snapshot | None:
        snapshot = torch_compat.counters_snapshot()
        return None if snapshot is None else dict(snapshot.items())

    def diff(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        return self._leaks(before, after, fallen=True) + (
            self._leaks(before, after, fallen=False) if self._report_growth else []
        )

    def silent(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        return [] if self._report_growth else self._leaks(before, after, fallen=False)

    def _leaks(self, before: Snapshot, after: Snapshot, fallen: bool) -> list[Leak]:
        groups: dict[str, dict[str, tuple[int, int]]] = {}
        for key in sorted({*before, *after}, key=str):
            old, new = int(before.get(key, 0)), int(after.get(key, 0))
            if old != new and (new < old) == fallen:
                group, _, counter = str(key).partition(".")
                groups.setdefault(group, {})[counter] = (old, new)
        return [self._leak(group, moved, before) for group, moved in groups.items()]

    def _leak(self, group: str, moved: dict[str, tuple[int, int]], before: Snapshot) -> Leak:
        was, now = (", ".join(f"{name} {pair[side]}" for name, pair in moved.items()) for side in (0, 1))
        return Leak(self.name, group, was, now, handle=before)

    def restore(self, leaks: Sequence[Leak]) -> None:
        for leak in leaks[:1]:  # each of them carries the whole snapshot
            snapshot: dict[Any, Any] = leak.handle
            torch_compat.counters_restore({str(name): int(number) for name, number in snapshot.items()})
