# SPDX-License-Identifier: Apache-2.0
"""torch's Inductor, Dynamo and functorch settings."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks.base import Change, LeakChecker, same, show
from pytest_compilepool.records import Leak, Snapshot


class ConfigChecker(LeakChecker):
    """Every setting of the config modules that are loaded. key: `inductor.compile_threads`; value: a copy.

    Settings that are there only on one side are not judged: their module was imported in between.
    """

    name: ClassVar[str] = "config"
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def measure(self) -> Snapshot | None:
        snapshot = torch_compat.config_snapshot()
        return None if snapshot is None else dict(snapshot.items())

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        for key, new in after.items():
            if key in before and not same(before[key], new):
                yield key, before[key], new

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        return Leak(self.name, str(key), show(old), show(new), handle=(key, old))

    def restore(self, leaks: Sequence[Leak]) -> None:
        for leak in leaks:
            name, old = leak.handle
            # The snapshot may serve another comparison: torch must not get its lists and sets to change.
            torch_compat.config_restore(name, copy.deepcopy(old))
