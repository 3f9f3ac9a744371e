# SPDX-License-Identifier: Apache-2.0
"""Verdicts from answers as they come from interpreters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_compilepool.fresh.order import Answer, Failure
from pytest_compilepool.fresh.run import Folders
from pytest_compilepool.parity.counts import MAY_DIFFER, compare_counters, measured
from pytest_compilepool.parity.errors import cause_of
from pytest_compilepool.parity.findings import CANDIDATE, Side
from pytest_compilepool.parity.judge import judge
from pytest_compilepool.parity.wish import Wish
from pytest_compilepool.records import JobRecord
from pytest_compilepool.torch_compat.compiles import TritonCompile
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
ANOTHER = dataclasses.replace(RAW, text=RAW.text.replace("such y", "such z"))
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
        failed(ANOTHER),
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


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        ("ValueError: at <f object at 0x7f0012345678>", "ValueError: at <f object at 0x7fab12345678>", True),
        ("ValueError: the mask is 0x7f", "ValueError: the mask is 0x80", False),
    ],
)
def test_addresses_are_no_part_of_a_cause(here, there, same):
    one, other = (cause_of(failed(dataclasses.replace(RAW, text=text))) for text in (here, there))
    assert one is not None
    assert other is not None
    assert one.same_as(other) == same


# -- the whole verdict -----------------------------------------------------------------------------------------

WISH = Wish(
    processes=(1, 2),
    start_methods=("subprocess",),
    repeat=1,
    target=None,
    compile=None,
    rtol=None,
    atol=None,
    bitwise=True,
    min_parallel=None,
    may_differ={},
    raises=None,
    environment={},
    before=None,
    ready_timeout=1,
    shutdown_timeout=1,
    limit=1,
)


def mode(processes: int, **told: object) -> Side:
    """A side that compiled one C++ kernel the way it should."""
    route = "threads" if processes > 1 else "parent"
    asked = [Asked("cpp", "cpp", "x", route)]
    output = {"output": 1, "changed": {}, "forms": {}}
    one = side(f"{processes}", **{"processes": processes, "asked": asked, "shutdown": "asked", **told})
    return dataclasses.replace(one, outputs=None if one.answer.failure else [output])


def failures(*sides: Side, **wished: object) -> list[str]:
    findings = judge(dataclasses.replace(WISH, **wished), sides)
    return [str(finding) for finding in findings if finding.fails]


def test_nothing_is_wrong_with_these():
    assert failures(mode(1), mode(2)) == []


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"faults": ["it burned"]}, "run: 2: it burned"),
        ({"shutdown": "killed"}, "run: 2: its pool did not end when it was asked to: killed"),
        ({"doubts": {"vllm": "gone"}}, "counter: vllm.*: with 2 not all that moved is known: gone"),
        ({"doubts": {"metrics": "the last 64"}}, None),
        ({"deaf": True}, None),
        ({"asked": []}, "parallel: 2: no kernel was compiled"),
        ({"asked": [Asked("cpp", "cpp", "x", "parent")]}, "cpp: 2: took another path than it should"),
    ],
)
def test_what_is_wrong_with_a_run(told, text):
    found = failures(mode(1), mode(2, **told))
    assert any(line.startswith(text) for line in found) if text else found == [], found


def test_one_device_and_another():
    here, there = (
        dataclasses.replace(one, outputs=[{"output": 1, "changed": {}, "forms": {"output": f"on {device}"}}])
        for one, device in ((mode(1), "cuda:0"), (mode(2), "cpu"))
    )
    (text,) = failures(here, there)
    assert text == "output: output: output is on cuda:0 and on cpu (1, then 2)"
    assert failures(here, there, bitwise=False) == [text]


def test_who_raised_is_said_of_the_one_that_did():
    (text,) = failures(mode(1), mode(2, failure=RAW))
    assert text.startswith("error: 2: CompilationError: ")
    assert "with 1: nothing was raised" in text
    (text,) = failures(mode(1, failure=RAW), mode(2), raises="no such y")
    assert text.startswith("error: 2: nothing was raised; with 1: CompilationError: ")


def test_two_errors_that_are_not_one():
    (text,) = failures(mode(1, failure=RAW), mode(2, failure=ANOTHER), raises="no such", min_parallel=0)
    assert text.startswith("error: 2: CompilationError: ")
    assert "no such z; with 1: CompilationError: " in text


@pytest.mark.parametrize(("min_parallel", "fails"), [(None, True), (0.5, True), (0, False)])
def test_cpp_kernels_that_no_thread_compiled(min_parallel, fails):
    asked = [Asked("cpp", "cpp", "x", "parent")]
    found = failures(mode(1), mode(2, asked=asked), min_parallel=min_parallel)
    assert [text.partition(":")[0] for text in found] == ["cpp"] * fails


@pytest.mark.parametrize(
    ("jobs", "text"),
    [
        ([JobRecord(1, "f", "triton_poi_0", "x", 0.0, 77, outcome="failed")], None),
        ([JobRecord(1, "f", "triton_poi_0", "x", 0.0, 77)], "parallel: triton_poi_0: with 2 it did not fail"),
        ([], "parallel: triton_poi_0: with 2 it did not fail in a worker"),
    ],
)
def test_a_kernel_fails_where_it_should_be_compiled(jobs, text):
    asked = [Asked("triton", "triton_poi_0", "x", "failed")]
    sides = mode(1, failure=RAW, asked=asked), mode(2, failure=WORKER, asked=asked, jobs=jobs)
    found = failures(*sides, raises="no such y")
    assert found[0].startswith(text) if text else found == [], found


def test_an_error_of_no_kernel_is_said_to_prove_nothing():
    failure = dataclasses.replace(RAW, text="OSError: planted")
    sides = mode(1, failure=failure), mode(2, failure=failure)
    (text,) = failures(*sides, raises="planted")
    assert text.startswith("parallel: 2: no kernel failed to compile")
    assert failures(*sides, raises="planted", min_parallel=0) == []


def test_what_was_compiled_must_be_there():
    compiles = [TritonCompile("triton_poi_0", "HASH", False, 0.0)]
    jobs = [JobRecord(1, "f", "triton_poi_1", "y", 0.0, 77, outcome="done")]
    found = failures(mode(1, compiles=compiles), mode(2, jobs=jobs))
    assert [text.partition(", and nothing")[0] for text in found] == [
        "kernel: triton_poi_0: it was compiled with 1",
        "kernel: triton_poi_1: it was compiled with 2",
    ]
