# SPDX-License-Identifier: Apache-2.0
"""Outputs, errors and bad input of `compile_parity`, on the CPU: C++ kernels, which threads compile and no pool."""

from __future__ import annotations

import re

import plants
import pytest
import torch
from tiers import further

from pytest_compilepool.fresh.callables import BadInput
from pytest_compilepool.fresh.run import FreshFailed
from pytest_compilepool.parity import outputs
from pytest_compilepool.parity.check import ParityError

pytestmark = pytest.mark.usefixtures("compiler_is_known")

X = torch.linspace(0.1, 1.5, 64)


def bits8(value: int) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.uint8).view(torch.bits8)


def fails(compile_parity, *args, error=ParityError, **kwargs) -> str:
    """Runs a check that must not pass; what it said."""
    # Most of these functions compile nothing, and are wrong by something else.
    kwargs = {"processes": (1, 2), "min_parallel": 0, **kwargs}
    with pytest.raises(error) as caught:
        compile_parity.check(*args, **kwargs)
    return str(caught.value)


def test_cpp_kernels_take_threads_and_are_the_same(compile_parity):
    report = compile_parity.check(plants.compiled_sum, X, processes=(1, 2), compile=False)
    single, pool = report.sides
    assert [asked.route for asked in single.answer.asked] == ["parent"]
    assert [asked.route for asked in pool.answer.asked] == ["threads"]
    assert pool.answer.cpp_threads
    assert pool.answer.jobs == []
    assert "1 C++ kernels by the calling thread" in report.lines()[1]
    assert "1 of 1 C++ kernels by 1 compile threads" in report.lines()[2]
    assert report.lines()[0].endswith("the same; C++ only: 1 of 1 C++ kernels by 1 compile threads")


@pytest.mark.thorough
def test_a_cpp_kernel_that_no_thread_compiled_is_found(compile_parity):
    text = fails(compile_parity, plants.compiles_in_the_calling_thread, X, compile=False, min_parallel=None)
    assert "cpp: 2 processes, subprocess: took another path than it should: 1 of 2 C++ kernels" in text


@pytest.mark.thorough
def test_nothing_compiled_proves_nothing(compile_parity):
    text = fails(compile_parity, plants.Doubling(), X, compile=False, min_parallel=None)
    assert "parallel: 2 processes, subprocess: no kernel was compiled, so this proves nothing" in text
    assert text.startswith("parity of Doubling (1 process, 2 processes, subprocess): 1 difference; 0 of 0")


@pytest.mark.thorough
def test_caches_that_were_put_elsewhere_are_found(compile_parity, tmp_path):
    text = fails(
        compile_parity,
        plants.moves_the_cache,
        X,
        compile=False,
        environment={"ELSEWHERE": str(tmp_path)},
    )
    assert f"run: 2 processes, subprocess: TRITON_CACHE_DIR was moved to {tmp_path}" in text


@pytest.mark.thorough
def test_counters_that_were_cleared_prove_nothing_unless_told_why(compile_parity):
    text = fails(compile_parity, plants.clears_the_counters, X, compile=False)
    assert "counter: torch.*: with 1 process not all that moved is known: cleared meanwhile" in text
    told = {"torch": "this function is about something else"}
    report = compile_parity.check(
        plants.clears_the_counters, X, processes=(1, 2), compile=False, may_differ=told, min_parallel=0
    )
    assert any("this function is about something else" in finding.text for finding in report.findings)


@pytest.mark.thorough
def test_an_interpreter_that_dies_after_it_has_answered(compile_parity):
    text = fails(compile_parity, plants.dies_at_the_end, X, compile=False)
    assert "run: 1 process: the interpreter was killed by signal 6 after it had answered" in text


# -- outputs: no compile is needed to tell them apart ------------------------------------------------------


def test_an_output_off_by_one_bit_is_found_and_named(compile_parity):
    text = fails(compile_parity, plants.off_by_one_bit, X, compile=False)
    assert "differs in 1 of 64 elements, within the tolerance of its type; the worst is at (63,)" in text


def test_arguments_as_the_call_left_them_are_compared(compile_parity):
    text = fails(compile_parity, plants.changes_its_argument, X, compile=False)
    assert (
        "output: output: arguments[0] differs in 1 of 64 elements, beyond the tolerance of its type" in text
    )
    assert "(as the calls left it)" in text


@pytest.mark.parametrize(
    ("function", "inputs", "text"),
    [
        (
            plants.strides,
            X,
            "output is a Tensor on cpu, strides (8, 2), requires_grad False and a Tensor on cpu, strides",
        ),
        (plants.gradient, plants.leaf, "arguments[0].grad differs in 3 of 3 elements"),
        *further(
            (plants.weights, (torch.nn.Linear(2, 2),), "arguments[0].weight differs in 4 of 4 elements"),
            (plants.longer, ([1],), "arguments[0][1] is None and 5|len(arguments[0]) is 1 and 2"),
            (plants.Counting(), X, "module.calls differs in 1 of 1 elements"),
        ),
    ],
)
def test_what_a_call_leaves_behind_is_compared(compile_parity, function, inputs, text):
    said = fails(compile_parity, function, inputs, compile=False, repeat=1)
    assert any(part in said for part in text.split("|")), said


@pytest.mark.thorough
def test_a_function_that_removes_its_caches(compile_parity):
    report = compile_parity.check(
        plants.removes_the_caches, X, processes=(1, 2), repeat=1, compile=False, min_parallel=0
    )
    assert report.failures == []


@pytest.mark.thorough
def test_a_call_finds_its_arguments_as_the_first_one_did(compile_parity):
    report = compile_parity.check(
        plants.adds_up, X, processes=(1, 2), repeat=3, compile=False, min_parallel=0
    )
    (call, *others) = report.sides[0].outputs
    assert call["output"] == (X + 1).sum()
    assert torch.equal(call["changed"]["arguments[0]"], X + 1)
    assert len(others) == 2


@pytest.mark.thorough
def test_within_the_tolerance_passes_who_says_so(compile_parity):
    report = compile_parity.check(
        plants.off_by_a_thousandth,
        X,
        processes=(1, 2),
        compile=False,
        bitwise=False,
        rtol=0,
        atol=0.01,
        min_parallel=0,
    )
    assert ["within the tolerance" in finding.text for finding in report.findings] == [True]


@pytest.mark.thorough
def test_beyond_the_tolerance_fails_in_any_case(compile_parity):
    text = fails(compile_parity, plants.off_by_a_thousandth, X, compile=False, bitwise=False)
    assert "differs in 64 of 64 elements, beyond the tolerance of its type" in text


def test_a_function_that_is_not_deterministic_is_named_as_such(compile_parity):
    text = fails(compile_parity, plants.never_the_same, X, compile=False)
    assert "the function is not deterministic: call 1 and call 2 in the same interpreter" in text
    assert "output: differs" not in text


@pytest.mark.thorough
def test_a_module_is_checked_and_random_numbers_are_seeded(compile_parity):
    module = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Dropout())
    report = compile_parity.check(module, X, processes=(1, 2), compile=False, min_parallel=0)
    assert report.name == "Sequential"


@pytest.mark.parametrize(
    ("here", "there", "text"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), None),
        (torch.tensor([0.0]), torch.tensor([-0.0]), "output differs in 1 of 1 elements, within"),
        (torch.zeros(2), torch.zeros(3), r"output has shape torch.Size\(\[2\]\) and torch.Size\(\[3\]\)"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), "output has dtype torch.float32 and torch.int64"),
        (torch.zeros(2, 3), torch.zeros(3, 2).t(), r"output has strides \(3, 1\) and \(1, 2\)"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), r"the worst is at \(1,\): 2.0 and 3.0|: 2 and 3"),
        (torch.tensor([True]), torch.tensor([False]), "output differs in 1 of 1"),
        (torch.tensor(1.0), torch.tensor(2.0), r"the worst is at \(\): 1.0 and 2.0, 1 apart"),
        (torch.tensor([float("inf")]), torch.tensor([1.0]), "inf apart"),
        ({"a": [1, torch.ones(1)]}, {"a": [2, torch.ones(1)]}, r"output\['a'\]\[0\] is 1 and 2"),
        ({"a": 1}, {"b": 1}, r"output\['a'\] is only there on one side"),
        ({"a": 1, "b": 1}, {"b": 1, "a": 1}, "output has the same keys in another order"),
        ([], (), "output is a list of 0 and a tuple of 0"),
        ([1], [1, 2], r"output\[1\] is only there on one side"),
        ({}, "a dict of 0", "output is a dict of 0 and 'a dict of 0'"),
        (torch.empty_strided((0, 4), (7, 1)), torch.empty(0, 4), r"output has strides \(7, 1\) and \(4, 1\)"),
        (
            torch.empty_strided((1, 4), (100, 1)).zero_(),
            torch.zeros(1, 4),
            r"output has strides \(100, 1\) and \(4, 1\)",
        ),
        (torch.tensor([2**60]), torch.tensor([2**60 + 1]), "and 1152921504606846977, 1 apart"),
        (
            torch.zeros(1).to(torch.float8_e4m3fn),
            torch.ones(1).to(torch.float8_e4m3fn),
            "1 of 1 elements, beyond",
        ),
        (bits8(0), bits8(1), "differs in 1 of 1 elements, .*has no arithmetic"),
        ({}, [], "output is a dict of 0 and a list of 0"),
        (torch.tensor([1j]), torch.tensor([2j]), r"the worst is at \(0,\): 1j and 2j, 1 apart"),
        (0.0, -0.0, "output is 0.0 and -0.0"),
        (1, 1.0, "output is 1 and 1.0"),
        (torch.zeros(0), torch.zeros(0), None),
    ],
)
def test_the_first_difference_of_outputs(here, there, text):
    found = outputs.difference(here, there)
    if text is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(text, found), found


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_an_error_in_one_mode_only(compile_parity):
    text = fails(compile_parity, plants.fails_with_a_pool, X, compile=False)
    assert (
        "2 processes, subprocess: OSError: planted for the pool only; with 1 process: nothing was raised"
        in text
    )


@pytest.mark.thorough
def test_an_error_that_was_expected(compile_parity):
    report = compile_parity.check(
        plants.fails, X, processes=(1, 2), compile=False, raises="OSError.*everybody", min_parallel=0
    )
    assert report.failures == []
    text = fails(compile_parity, plants.fails, X, compile=False, raises="KeyError")
    assert "wanted was one like 'KeyError'" in text


@pytest.mark.thorough
def test_an_error_that_did_not_come(compile_parity):
    text = fails(compile_parity, plants.Doubling(), X, compile=False, raises="KeyError")
    assert "nothing was raised; wanted: an error like 'KeyError'" in text


def test_an_interpreter_that_dies_and_one_that_hangs(compile_parity):
    text = fails(compile_parity, plants.dies, X, compile=False, error=FreshFailed)
    assert "was killed by signal 6, in stage 'call the function'" in text
    text = fails(compile_parity, plants.hangs, X, compile=False, limit=8, error=FreshFailed)
    assert "was still at it after 8 s and was ended, in stage 'call the function'" in text
    assert "in hangs" in text  # where it hung


# -- bad input: a sentence each ----------------------------------------------------------------------------------


def test_an_output_that_is_no_tensor(compile_parity):
    text = fails(compile_parity, plants.object_output, X, compile=False, error=BadInput)
    assert text == (
        "1 process: output['here'][1] is of type builtins.object; allowed are tensors, numbers, texts, None, and "
        "lists, tuples and dicts of them"
    )


def test_inputs_on_a_device_that_is_not_there(compile_parity):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    text = fails(compile_parity, plants.off_by_one_bit, plants.on_a_gpu, compile=False, error=BadInput)
    assert "the inputs want a device that is not here" in text
    assert 'target="cuda:90"' in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((lambda x: x, X), "is a lambda, which a fresh interpreter cannot import"),
        ((42, X), "42 is not a function; allowed: one at the top level of a module"),
        ((plants.Doubling().__call__, X), "is a method of an object"),
        ((plants.Deaf(), X), "this cannot be sent to a fresh interpreter"),
        ((plants.fails, 3), "inputs=3 is not allowed; allowed: a tuple or list of arguments, one tensor, or"),
        ((plants.fails, (X, lambda: 1)), "this cannot be sent to a fresh interpreter"),
    ],
)
def test_what_cannot_be_checked(compile_parity, arguments, sentence):
    assert sentence in fails(compile_parity, *arguments, error=BadInput)


class Shapely:
    shape = 3

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        (
            {"processes": (4,)},
            "processes=(4,) is not allowed; allowed: at least two different numbers from 1",
        ),
        ({"processes": (2, 2)}, "processes=(2, 2) is not allowed"),
        ({"processes": 4}, "processes=4 is not allowed"),
        ({"processes": (1, "many")}, "'many' is not a number of compile processes"),
        ({"processes": (0, 1)}, "0 is not a number of compile processes"),
        (
            {"start_methods": "fork"},
            "start_methods='fork' is not allowed; allowed: a sequence of different ones of subprocess",
        ),
        ({"start_methods": ("thread",)}, "start_methods=('thread',) is not allowed"),
        ({"repeat": 0}, "repeat=0 is not allowed; allowed: a whole number from 1"),
        ({"repeat": True}, "repeat=True is not allowed"),
        ({"target": "cuda:91"}, "target: 'cuda:91' is not allowed; allowed: cuda:75, cuda:80"),
        ({"min_parallel": 2}, "min_parallel=2 is not allowed; allowed: a share from 0 to 1"),
        (
            {"compile": "max-autotune"},
            "compile='max-autotune' is not allowed; allowed: True, False, or arguments",
        ),
        ({"before": lambda: None}, "before: "),
        ({"processes": None}, "processes=None is not allowed"),
        ({"processes": {1, 4}}, "processes={1, 4} is not allowed"),
        ({"processes": (1, 2.5)}, "2.5 is not a number of compile processes"),
        ({"processes": (1, 9999)}, "9999 is not a number of compile processes"),
        ({"start_methods": ("fork", "fork")}, "start_methods=('fork', 'fork') is not allowed"),
        ({"start_methods": 3}, "start_methods=3 is not allowed"),
        ({"start_methods": ()}, "start_methods=() is not allowed"),
        ({"rtol": 0.1}, "rtol=0.1 and atol=None are not allowed; allowed: both, or neither of them"),
        ({"rtol": -1, "atol": 0}, "rtol=-1 is not allowed; allowed: a number from 0"),
        ({"rtol": float("nan"), "atol": 0}, "rtol=nan is not allowed"),
        ({"atol": "much", "rtol": 0}, "atol='much' is not allowed"),
        ({"bitwise": "no"}, "bitwise='no' is not allowed; allowed: True or False"),
        ({"raises": "("}, "raises='(' is not allowed (missing ), unterminated subpattern"),
        (
            {"raises": OSError},
            "raises=<class 'OSError'> is not allowed; allowed: a regular expression as text",
        ),
        ({"raises": re.compile("a")}, "raises=re.compile('a') is not allowed"),
        ({"raises": b"a"}, "raises=b'a' is not allowed"),
        ({"raises": ""}, "raises='' is not allowed"),
        (
            {"may_differ": {"inductor.fxgraph_cache_mist": "x"}},
            "may_differ: there is no counter 'inductor.fxgraph",
        ),
        ({"rtol": 10**400, "atol": 0}, "is not allowed; allowed: a number from 0 to 1e30"),
        ({"inputs": torch.nn.ReLU()}, "inputs=ReLU() is not allowed; allowed: a tuple or list"),
        ({"inputs": OSError}, "inputs=<class 'OSError'> is not allowed"),
        ({"inputs": Shapely()}, "inputs=a Shapely without a repr is not allowed"),
        ({"may_differ": ["a"]}, "may_differ=['a'] is not allowed; allowed: names of counters, each with"),
        ({"may_differ": {"a": ""}}, "may_differ={'a': ''} is not allowed"),
        ({"keywords": [1]}, "keywords=[1] is not allowed; allowed: a dict of arguments by name"),
        ({"keywords": {1: 2}}, "keywords={1: 2} is not allowed"),
        ({"environment": {"TRITON_CACHE_DIR": "/x"}}, "environment: TRITON_CACHE_DIR is not allowed"),
        ({"environment": {"A": 1}}, "environment: 'A': 1 is not allowed"),
        ({"environment": "A=1"}, "environment='A=1' is not allowed; allowed: a dict of texts"),
        ({"compile": {"backend": lambda *_: 0}}, "this cannot be sent to a fresh interpreter"),
        ({"compile": {1: 2}}, "compile={1: 2} is not allowed"),
        ({"limit": 0}, "limit=0 is not allowed; allowed: seconds, more than 0"),
    ],
)
def test_arguments_that_are_not_allowed(compile_parity, keywords, sentence):
    inputs = keywords.pop("inputs", X)
    assert sentence in fails(compile_parity, plants.fails, inputs, error=BadInput, **keywords)
