# SPDX-License-Identifier: Apache-2.0
"""The reference pool under the conformance suite: all that it takes."""

from __future__ import annotations

from pytest_compilepool.suites.requirements import Requirements
from reference_pool import ReferencePool, count


class ReferenceRequirements(Requirements):
    name = "the reference pool"
    count_variable = count.VARIABLE

    def make(self, processes: int, idle_seconds: float | None) -> ReferencePool:
        return ReferencePool(processes, quiesce_after=idle_seconds)

    def decided_count(self) -> int:
        return count.default_processes()
