# SPDX-License-Identifier: Apache-2.0
"""A timeout that is none is told at once, in one sentence, by whatever takes one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from pytest_compilepool.fresh import callables
from pytest_compilepool.fresh.callables import BadInput
from pytest_compilepool.marks import compilepool
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.words import seconds

BAD = [0, -1, float("nan"), float("inf"), 3601, True, "5", None]


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_timeout(value: object) -> None:
    says = f"it={value!r} is not allowed; allowed: seconds, more than 0 and at most 3600"
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        seconds(value, "it")


def test_a_number_that_python_does_not_write() -> None:
    with pytest.raises(ValueError, match=r"^it=<int without a repr> is not allowed; allowed: seconds"):
        seconds(10**5000, "it")


@pytest.mark.parametrize("value", [0.001, 1, 3600])
def test_what_is_one(value: float) -> None:
    assert seconds(value, "it") == value


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda value: CompilePool(2).wait_ready(value), "wait_ready: timeout"),
        (lambda value: CompilePool(2).prime("cuda:90", timeout=value), "prime: timeout"),
        (lambda value: CompilePool(2).quiesce(value), "quiesce: timeout"),
        (lambda value: CompilePool(2).wakeup(value), "wakeup: timeout"),
        (lambda value: CompilePool(2, ready_timeout=value), "ready_timeout"),
        (lambda value: CompilePool(2, quiesce_timeout=value), "quiesce_timeout"),
        (lambda value: CompilePool(2, shutdown_timeout=value), "shutdown_timeout"),
        (lambda value: compilepool(ready_timeout=value), "ready_timeout"),
    ],
)
def test_whoever_takes_one(call: Callable[[float], object], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}=nan is not allowed; allowed: seconds, more than 0"):
        call(float("nan"))


def test_a_fresh_interpreter_takes_one() -> None:
    with pytest.raises(BadInput, match=r"^compile_phases: limit=nan is not allowed; allowed: seconds, more"):
        callables.seconds(float("nan"), "limit", "compile_phases")
