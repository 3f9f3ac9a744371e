# SPDX-License-Identifier: Apache-2.0
"""How many workers a pool has when nobody says how many."""

from __future__ import annotations

import os

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature


@feature("count.respects-affinity")
def test_respects_affinity(bench: Bench) -> None:
    os.environ.pop(bench.requirements.count_variable, None)
    usable = sorted(os.sched_getaffinity(0))
    for number in {1, min(2, len(usable))}:
        os.sched_setaffinity(0, usable[:number])
        found = bench.requirements.decided_count()
        check(
            found == number,
            f"a process that may run on {number} of {os.cpu_count()} CPUs would have {found} workers",
        )
        os.sched_setaffinity(0, usable)


@feature("count.bad-value-is-told")
def test_bad_value_is_told(bench: Bench) -> None:
    name = bench.requirements.count_variable
    os.environ[name] = "3"
    found = bench.requirements.decided_count()
    check(found == 3, f"{name}=3 makes a pool of {found}")
    for value in ("abc", "", "2.5"):
        os.environ[name] = value
        try:
            found = bench.requirements.decided_count()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            check(name in told, f"{name}={value!r}: the error does not name the variable: {told}")
        else:
            raise AssertionError(f"{name}={value!r} is no number, and makes a pool of {found}")
