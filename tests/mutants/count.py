# SPDX-License-Identifier: Apache-2.0
"""Wrong numbers of workers."""

from __future__ import annotations

import os

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "There is a worker for each CPU of the machine.", kills="count.respects-affinity", requirements=REFERENCE
)
def every_cpu_of_the_machine(side: str) -> None:
    if side == "parent":
        from reference_pool import count

        # One more, or it would be right on a machine with one.
        count.default_processes = lambda: (os.cpu_count() or 1) + 1


@mutant(
    "torch starts a worker for each CPU of the machine.", kills="count.respects-affinity", requirements=TORCH
)
def every_cpu_for_torch(side: str) -> None:
    if side == "parent":
        from torch._inductor import config

        # Not an assignment: it takes settings only.
        vars(config)["decide_compile_threads"] = lambda: (os.cpu_count() or 1) + 1


@mutant(
    "A number of workers that cannot be read is told without the variable.",
    kills="count.bad-value-is-told",
    requirements=REFERENCE,
)
def which_variable_is_not_told(side: str) -> None:
    if side == "parent":
        from reference_pool import count

        count.default_processes = lambda: int(os.environ[count.VARIABLE])


@mutant("What is no number of workers is ignored.", kills="count.bad-value-is-told", requirements=REFERENCE)
def bad_values_are_ignored(side: str) -> None:
    if side == "parent":
        from reference_pool import count

        def default_processes() -> int:
            text = os.environ[count.VARIABLE]
            return int(text) if text.isdecimal() else 2

        count.default_processes = default_processes
