# SPDX-License-Identifier: Apache-2.0
"""The current folder."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from pytest_compilepool.leaks.base import LeakChecker
from pytest_compilepool.records import Leak, Snapshot


class CwdChecker(LeakChecker):
    """key: "cwd"; value: the folder, or None where it has been removed."""

    name: ClassVar[str] = "cwd"
    cheap: ClassVar[bool] = True
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def measure(self) -> Snapshot:
        try:
            return {"cwd": os.getcwd()}
        except OSError:
            return {"cwd": None}

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        before, after = (folder or "a folder that had been removed" for folder in (old, new))
        return Leak(self.name, str(key), before, after, handle=old)

    def restore(self, leaks: Sequence[Leak]) -> None:
        for leak in leaks:
            try:
                os.chdir(leak.handle)
            except (OSError, TypeError):
                pass  # the test has removed the folder it came from, or it was gone before
