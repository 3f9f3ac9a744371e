# SPDX-License-Identifier: Apache-2.0
"""torch's counters and metrics, of real compiles; and what a failed test shows of them."""

from __future__ import annotations

import re
import sys
import types

import pytest

from pytest_compilepool.counters import at_least, between
from pytest_compilepool.torch_compat.counters import CompilationMetrics

# A number that no other run has: the first compile misses every cache, whatever is in the folders.
PROGRAM = """
import random
import pytest
from pytest_compilepool.counters import at_least, unchanged

def program():
    import torch
    # As text: the second number of a closure would be an input, and its program in the cache.
    return torch.compile(eval(f"lambda x: torch.relu(x) * {random.random()}", {"torch": torch}))

def call(function):
    import torch
    function(torch.ones(4))

def forget():
    import torch._dynamo
    torch._dynamo.reset()
"""


MISS_SAVE_HIT = """
def test_cold_and_warm(compile_counters):
    import sys
    assert "torch" not in sys.modules  # then all of them are 0, and known
    assert compile_counters.read()["inductor.fxgraph_cache_miss"] == 0
    function = program()
    with compile_counters.expect(
        {
            "aot_autograd.autograd_cache_miss": 1,
            "aot_autograd.autograd_cache_saved": 1,
            "aot_autograd.autograd_cache_hit": unchanged,
            "inductor.fxgraph_cache_miss": 1,
            "inductor.fxgraph_cache_hit": unchanged,
            "frames.ok": 1,
            "stats.unique_graphs": 1,
            "metrics.compilations": 1,
            "metrics.dynamo_cumulative_compile_time_us": at_least(1),
            "inductor_metrics.generated_kernel_count": 1,
            "pool.jobs_submitted": 0,
            "pool.in_process_compiles": 0,
        }
    ):
        call(function)
    assert compile_counters.moved()["inductor.fxgraph_cache_miss"] == 1
    with compile_counters.expect(
        {
            "aot_autograd.autograd_cache_hit": 1,
            "aot_autograd.autograd_cache_miss": unchanged,
            "inductor.fxgraph_cache_hit": 1,
            "inductor.fxgraph_cache_miss": 0,
            "metrics.compilations": 1,
        }
    ):
        forget()
        call(function)
    with compile_counters.expect({}, exact=True):
        call(function)  # nothing is compiled at all
    assert compile_counters.moved()["frames.total"] == 2

def test_exact_finds_what_was_not_named(compile_counters):
    with compile_counters.expect({"frames.total": 1}, exact=True):
        call(program())

def test_clearing_is_seen(compile_counters):
    from torch._dynamo.utils import counters
    with compile_counters.expect({"inductor.fxgraph_cache_miss": 0}):
        call(program())
        counters.clear()
"""


def test_miss_save_and_hit_of_real_compiles(inner):
    result = inner(
        PROGRAM + MISS_SAVE_HIT,
        "-p",
        "no:randomly",
        "--show-capture=no",
    )
    result.assert_outcomes(passed=1, failed=2)
    out = result.stdout.str()
    exact, cleared = out.split("_ test_clearing_is_seen _")
    for name in ("frames.ok", "inductor.fxgraph_cache_miss", "inductor_metrics.generated_kernel_count"):
        assert f"E         {name} " in exact
        (row,) = [line.split() for line in exact.splitlines() if line.startswith(f"E         {name} ")]
        assert (row[2], row[-1]) == ("unchanged", "+1")
    assert any(
        line.startswith("E         inductor.fxgraph_cache_miss ") and line.endswith("cleared meanwhile")
        for line in cleared.splitlines()
    )


@pytest.mark.usefixtures("pool_here")
def test_neither_the_pool_fixture_nor_the_leak_check_gets_in_the_way(inner):
    """Both set torch's counters back when a test is over; the next one begins from there."""
    result = inner(
        """
from torch._dynamo.utils import counters
counters["inductor"]["fxgraph_cache_hit"] = 7

def test_one(compile_counters, compile_pool):
    import torch
    with compile_counters.expect({"inductor.fxgraph_cache_hit": 2, "frames.ok": 1}):
        counters["inductor"]["fxgraph_cache_hit"] += 2
        torch.compile(lambda x: x + 1, backend="aot_eager")(torch.ones(2))
    assert compile_counters.read()["inductor.fxgraph_cache_hit"] == 9

def test_two(compile_pool, compile_counters):
    assert compile_counters.moved() == {}
    assert compile_counters.read()["inductor.fxgraph_cache_hit"] == 7
    assert compile_counters.read()["pool.jobs_done"] == 0

def test_three(compile_counters):
    counters.clear()
    assert compile_counters.moved()["inductor.fxgraph_cache_hit"] == -7
    assert "cleared meanwhile" in repr(compile_counters.moved())
""",
        "-p",
        "no:randomly",
        "--compilepool-leaks=warn",
    )
    result.assert_outcomes(passed=3)
    out = result.stdout.str()
    # The third test has cleared them, and that is its leak; reading and growing is none.
    assert "test_three left behind" in out
    assert "counters: inductor" in out
    assert "test_one left behind" not in out
    assert "test_two left behind" not in out


BODIES = """
import pytest
from pytest_compilepool.counters import CountersDiffer

class OfMine(Exception):
    pass

def test_raises(compile_counters):
    with compile_counters.expect({"pool.jobs_done": 1}):
        raise OfMine("first of all")

def test_replaced(compile_counters):
    try:
        with compile_counters.expect({"pool.jobs_done": 2}):
            raise OfMine("first of all")
    except OfMine:
        raise KeyError("another one") from None

def test_swallowed(compile_counters):
    with pytest.raises(OfMine):
        with compile_counters.expect({"pool.jobs_done": 3}):
            raise OfMine("first of all")

def test_mismatch_that_is_expected(compile_counters):
    with pytest.raises(CountersDiffer):
        with compile_counters.expect({"pool.jobs_done": 4}):
            pass

@pytest.mark.xfail(raises=OfMine, strict=True)
def test_expected_to_fail(compile_counters):
    with compile_counters.expect({"pool.jobs_done": 5}):
        raise OfMine("first of all")

def test_skips(compile_counters):
    with compile_counters.expect({"pool.jobs_done": 6}):
        pytest.skip("not today")

def test_without_with(compile_counters):
    compile_counters.expect({"pool.jobs_done": 7})

def test_no_entry(compile_counters):
    with compile_counters.baseline("not there"):
        pass
"""


@pytest.mark.parametrize("how", [[], ["--assert=plain", "--tb=short"]], ids=["rewritten", "plain"])
def test_a_block_that_raises_loses_neither_its_error_nor_the_table(inner, how):
    result = inner(BODIES, "-p", "no:randomly", *how)
    result.assert_outcomes(passed=3, failed=2, errors=2, xfailed=1, skipped=2)
    out = result.stdout.str()
    errors, failures = out.split("= FAILURES =")
    raised, replaced = failures.split("_ test_replaced _")
    assert "_ ERROR at teardown of test_swallowed _" in errors
    assert (
        "_ ERROR at teardown of test_without_with _\ncompile_counters.expect: a block was never entered"
        in re.sub("_+", "_", errors)
    )
    for part, number, error in (
        (errors, 3, ""),
        (raised, 1, "OfMine: first of all"),
        (replaced, 2, "KeyError"),
    ):
        assert f"pool.jobs_done  {number} " in part
        assert "the block ended with OfMine" in part
        assert error in part
    if sys.version_info >= (3, 11):
        # With the error itself, so that also a report without sections has it.
        assert re.search("^E +compile counters did not move as expected", raised, re.MULTILINE)
    result.stdout.fnmatch_lines(["FAILED *::test_raises - *OfMine: first of all"])
    for number in (4, 5, 6):
        assert f"pool.jobs_done  {number} " not in out


def test_a_failure_ends_at_the_line_of_the_test(inner):
    result = inner(
        """
        def test_differs(compile_counters):
            with compile_counters.expect({"pool.jobs_done": 1}):
                pass

        def test_unknown(compile_counters):
            with compile_counters.expect({"pool.job_done": 1}):
                raise AssertionError("the block was run")

        def test_bad(compile_counters):
            with compile_counters.expect({"pool.jobs_done": -1}):
                raise AssertionError("the block was run")

        def test_of_a_mapping(compile_counters):
            compile_counters.moved()["pool.job_done"]
        """,
        "--tb=short",
    )
    result.assert_outcomes(failed=4)
    out = result.stdout.str()
    assert "pytest_compilepool/counters" not in out
    assert "the block was run" not in out
    assert out.count("the nearest are: pool.jobs_done") >= 2


def test_no_helper_depends_on_rewriting():
    """`-p compilepool` names the entry point, not the package: an `assert` in here would not be rewritten."""
    import ast
    from pathlib import Path

    from pytest_compilepool import counters

    files = list(Path(counters.__path__[0]).glob("*.py"))
    assert len(files) > 10
    for file in files:
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(file.read_text()))), file


# -- metrics: torch keeps the last 64 ---------------------------------------------------------------------


@pytest.fixture
def utils(monkeypatch):
    """torch's module with a list of compilations of our own."""
    import torch._dynamo.utils as utils

    monkeypatch.setattr(utils, "_compilation_metrics", types.SimpleNamespace(), raising=True)
    utils._compilation_metrics = []

    def compiled(time: int, **more: object) -> None:
        utils._compilation_metrics.append(utils.CompilationMetrics(triton_compile_time_us=time, **more))
        del utils._compilation_metrics[:-64]

    return types.SimpleNamespace(compiled=compiled, clear=utils._compilation_metrics.clear)


def test_metrics_are_added_up_and_never_fall(utils):
    utils.compiled(5)
    sums = CompilationMetrics()
    assert sums.read()["triton_compile_time_us"] == 5
    utils.compiled(7, num_triton_bundles=2)
    utils.compiled(7, num_triton_bundles=None)  # equal to the one before, and yet another
    utils.compiled(1, is_runtime=True)
    assert (sums.read()["triton_compile_time_us"], sums.read()["compilations"]) == (20, 3)
    assert sums.read()["num_triton_bundles"] == 2
    assert sums.losses == 0
    utils.clear()  # what nobody had seen would be gone
    assert (sums.read()["triton_compile_time_us"], sums.losses) == (20, 1)
    for _ in range(63):
        utils.compiled(1)
    assert sums.read()["triton_compile_time_us"] == 83
    utils.compiled(1)
    utils.compiled(1)
    assert (sums.read()["triton_compile_time_us"], sums.losses) == (85, 1)


def test_metrics_that_torch_dropped_unseen(counters, utils):
    def many():
        for _ in range(65):
            utils.compiled(1)

    from pytest_compilepool.counters import CountersDiffer

    with pytest.raises(
        CountersDiffer, match="incomplete: cleared, or more than the 64 compilations that torch keeps"
    ):
        block(counters, {"metrics.triton_compile_time_us": at_least(64)}, many)
    block(counters, {"metrics.triton_compile_time_us": between(2, 2)}, lambda: utils.compiled(2))


def block(counters, expected, body):
    with counters.expect(expected):
        body()
