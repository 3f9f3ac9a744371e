# SPDX-License-Identifier: Apache-2.0
"""The verdicts on counters and errors, from answers as they come from interpreters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_compilepool.fresh.order import Answer, Failure
from pytest_compilepool.fresh.run import Folders
from pytest_compilepool.parity.counts import MAY_DIFFER, compare_counters, measured
from pytest_compilepool.parity.errors import cause_of
from pytest_compilepool.parity.findings import CANDIDATE, Side
from pytest_compilepool.records import JobRecord
from pytest_compilepool.torch_compat.kernels import Asked


def side(label: str, **told: object) -> Side:
    nowhere = Path("/nowhere") / label
    return Side(label, Answer(**told), Folders(nowhere / "run", nowhere, nowhere, nowhere), [], None)  # type: ignore[arg-type]


def verdicts(mine: dict[str, int], theirs: dict[str, int], **told: object) -> dict[str, bool]:
    one, other = side("one", moved=mine), side("other", moved=theirs, **told)
    return {finding.what: finding.fails for finding in compare_counters(one, other, MAY_DIFFER)}


def test_a_counter_that_moved_otherwise_fails():
    assert verdicts({"a.b": 1, "a.c": 2}, {"a.b": 1, "a.c": 3}) == {"a.c": True}
    assert verdicts({}, {"aot_autograd.autograd_cache_miss": 1}) == {"aot_autograd.autograd_cache_miss": True}


def test_those_that_a_pool_moves_otherwise_are_told_with_the_reason():
    one = side("one", moved={"inductor.async_compile_cache_miss": 1})
    other = side("other", moved={"inductor.async_compile_cache_miss": 2})
    (finding,) = compare_counters(one, other, MAY_DIFFER)
    assert not finding.fails
    assert "asked for twice" in finding.text
    (finding,) = compare_counters(one, other, {})
    assert finding.fails


def test_measurements_differ_each_time():
    name = "inductor.benchmarking.InductorBenchmarker.benchmark"
    assert verdicts(
        {"metrics.triton_compile_time_us": 5, name: 3}, {"metrics.triton_compile_time_us": 7}
    ) == {name: False}


def test_choices_by_measurement_excuse_only_what_they_move():
    chosen = {"inductor.select_algorithm_autotune": 1, "inductor.extern_calls": 1, "aot_autograd.ok": 1}
    other = {"inductor.select_algorithm_autotune": 1, "aot_autograd.ok": 2}
    assert verdicts(chosen, other) == {"inductor.extern_calls": False, "aot_autograd.ok": True}
    assert verdicts({"inductor.extern_calls": 1}, {}) == {"inductor.extern_calls": True}
    # Without a GPU nothing is measured.
    assert not measured(side("one", moved=chosen, target="cuda:90"))
    assert measured(side("one", moved=chosen))


@pytest.mark.parametrize(
    ("jobs", "fails"),
    [
        ([], True),
        ([("triton_poi_0", "x")], True),
        ([("triton_poi_0", "x"), ("triton_poi_0", "x")], False),
        ([(CANDIDATE, "x")], False),
    ],
)
def test_what_is_bundled_twice_is_excused_by_who_was_sent_twice(jobs, fails):
    name = "inductor.triton_bundler_save_kernel"
    records = [JobRecord(1, "f", kernel, source, 0.0) for kernel, source in jobs]
    assert verdicts({name: 8}, {name: 16}, jobs=records) == {name: fails}


# -- errors ----------------------------------------------------------------------------------------------------

RAW = Failure(
    "call the function", "InductorError", "CompilationError: at 3:4:\n    x = y\n    ^\nno such y", ""
)
WORKER = Failure(
    "call the function",
    "InductorError",
    "SubprocException: An exception occurred in a subprocess:\n\nName=triton_poi_0\nTraceback (most recent call last):\n"
    '  File "a.py", line 1, in f\n    g()\ntriton.errors.CompilationError: at 3:4:\n    x = y\n    ^\nno such y\n\n'
    "Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace",
    "",
)


def failed(failure: Failure, kernel: str = "triton_poi_0") -> Side:
    asked = [Asked("triton", kernel, "x", "failed")]
    return side("one", failure=failure, asked=asked)


def test_a_workers_error_and_the_raw_one_have_the_same_cause():
    one, other = cause_of(failed(RAW)), cause_of(failed(WORKER))
    assert one is not None
    assert other is not None
    assert one.same_as(other)
    assert one.type == "CompilationError"
    assert one.text.endswith("no such y")
    assert str(other).endswith("(kernel triton_poi_0)")


@pytest.mark.parametrize(
    "other",
    [
        failed(RAW, "triton_poi_1"),
        failed(dataclasses.replace(RAW, text=RAW.text.replace("such y", "such z"))),
        failed(dataclasses.replace(RAW, text=RAW.text.replace("CompilationError", "OutOfResources"))),
    ],
    ids=["another kernel", "another text", "another class"],
)
def test_another_cause(other):
    one, cause = cause_of(failed(RAW)), cause_of(other)
    assert one is not None
    assert cause is not None
    assert not one.same_as(cause)


def test_no_failure_has_no_cause():
    assert cause_of(side("one")) is None
