# SPDX-License-Identifier: Apache-2.0
"""What is made of measurements: order, medians, ratios, bounds, tables; nothing is measured here."""

from __future__ import annotations

import json

import pytest

from pytest_compilepool.bench import rounds, tables
from pytest_compilepool.bench.bounds import bound_of
from pytest_compilepool.bench.compile import shares
from pytest_compilepool.bench.result import SCHEMA, BadResult, Result, Sample, Side
from pytest_compilepool.bench.workloads import MOST_KERNELS, as_triton, plan


def test_each_round_has_every_side_once_in_turning_order():
    assert rounds.turns("abc", 3) == [
        *((0, side) for side in "abc"),
        *((1, side) for side in "cba"),
        *((2, side) for side in "abc"),
    ]
    assert rounds.turns("ab", 0) == []


def test_the_median_is_of_those_that_have_the_figure():
    assert rounds.medians([{"a": 1}, {"a": 3}, {"a": 5, "b": 7}]) == {"a": 3, "b": 7}
    assert rounds.medians([]) == {}


def test_the_ratio_is_the_median_of_the_rounds_and_not_that_of_the_medians():
    ours = {0: {"t": 1.0}, 1: {"t": 10.0}, 2: {"t": 4.0}, 3: {"t": 0.0}}
    theirs = {0: {"t": 2.0}, 1: {"t": 20.0}, 2: {"t": 4.0}, 4: {"t": 5.0}}
    assert rounds.ratio("t", ours, theirs) == 2.0
    assert rounds.ratio("t", ours, {}) is None
    assert rounds.ratio("other", ours, theirs) is None


def test_the_bound_is_that_of_amdahl_round_by_round(compiled):
    bound = bound_of(compiled, Side(2, True, "model"))
    assert bound is not None
    assert bound.amdahl == pytest.approx((7 + 14) / 2)
    assert bound.chain == pytest.approx((4.5 + 8.5) / 2)
    assert bound.above == pytest.approx(0.1)
    assert bound_of(compiled, Side(1, True, "model")) is None
    assert bound_of(compiled, Side(2, False, "model")) is None


def test_more_processes_than_cpus_help_no_more_than_cpus(compiled):
    compiled.samples.append(Sample(0, Side(8, True, "model"), compiled.samples[1].figures))
    assert bound_of(compiled, Side(8, True, "model")).amdahl == 7
    compiled.about["cpus"] = 64
    eight = bound_of(compiled, Side(8, True, "model"))
    assert eight.amdahl == 4.75
    compiled.samples[0].figures["longest"] = 3.0
    assert bound_of(compiled, Side(8, True, "model")).chain == 7
    assert bound_of(compiled, Side(8, True, "model")).above == pytest.approx(0.1)


def test_the_table_of_compiles_says_how_near_it_came(compiled):
    lines = "\n".join(tables.compile_table(compiled)).splitlines()
    rows = {line.strip()[:28].strip(): line.split()[-1] for line in lines if line.startswith("  ")}
    assert rows["times as fast: total"] == "1.30"
    assert rows["kernels, as the process sees"] == "1.71"
    assert rows["of them through the pool"] == "20"
    assert rows["total against the larger bou"] == "+10.0%"
    assert rows["pool: ready after"] == "2.00"
    assert rows["first Triton compile in the"] == "-"
    assert "which need not be here" in lines[2]
    assert "below the bound" not in "\n".join(lines)


def test_who_is_faster_than_the_bound_is_told_why(compiled):
    for sample in compiled.samples:
        if sample.side.processes == 2:
            sample.figures["total"] *= 0.8
    assert "below the bound" in "\n".join(tables.compile_table(compiled))


def test_without_one_process_there_is_no_bound(compiled):
    compiled.samples = [one for one in compiled.samples if one.side.processes > 1]
    assert "no bound: it takes 1 among the processes" in "\n".join(tables.compile_table(compiled))
    compiled.samples.clear()
    compiled.faults = ["model, round 1: it failed"]
    assert tables.compile_table(compiled)[0] == "nothing was measured"
    assert "  model, round 1: it failed" in tables.compile_table(compiled)


def test_a_primed_pool_is_also_compared_with_a_process_as_it_comes(compiled):
    compiled.samples.append(
        Sample(0, Side(1, False, "model"), {**compiled.samples[0].figures, "total": 15.4})
    )
    said = "\n".join(tables.compile_table(compiled))
    assert "2 processes, primed, against 1 process that was not: 2.00 times as fast" in said


def test_a_machine_that_was_busy_is_told(compiled):
    compiled.about["load"] = 0.9
    assert "something else may have been at work" not in tables.compile_table(compiled)[0]
    compiled.about["load"] = 1.9
    assert (
        "load average before the first run: 1.9; something else may have been at work"
        in tables.compile_table(compiled)[0]
    )


def test_the_table_of_pools(pools):
    said = "\n".join(tables.pool_table(pools))
    assert "2 processes           4 processes" in said
    assert "2.00 s                3.00 s" in said
    assert "4.5 MB" in said
    assert "recycle" not in said
    assert tables.pool_table(Result("pool", {}, faults=["round 1: no"]))[0] == "nothing was measured"


def test_no_second_is_counted_twice():
    phases = {"_compile.compile_inner": 9.0, "create_aot_dispatcher_function": 7.0, "compile_fx_inner": 6.0}
    found = shares(10.0, 2.0, phases)
    assert found == {"inductor": 4.0, "autograd": 1.0, "dynamo": 2.0, "other": 1.0}
    assert sum(found.values()) + 2.0 == 10.0
    # A torch that does not tell a phase has its time in the one around it; one that tells nothing, in the rest.
    assert shares(10.0, 2.0, {"_compile.compile_inner": 9.0}) == {
        "inductor": 0.0,
        "autograd": 0.0,
        "dynamo": 7.0,
        "other": 1.0,
    }
    assert shares(10.0, 2.0, {})["other"] == 8.0


def test_the_kernels_of_a_plan_are_all_different():
    names = ("a", "b", "c", "d", "e")
    assert len({*plan(MOST_KERNELS, names)}) == MOST_KERNELS
    assert plan(2, names) == [("a", 1), ("b", 1)]
    assert as_triton("cuda:90:32") == ("cuda", 90, 32)
    assert as_triton("hip:gfx942:64") == ("hip", "gfx942", 64)


def test_a_result_comes_back_from_its_file_as_it_was(compiled, pools):
    for result in (compiled, pools):
        told = json.loads(json.dumps(result.as_json()))
        again = Result.from_json(told, result.bench)
        assert told.pop("schema") == SCHEMA
        assert again == result == Result.from_json(told, result.bench)  # one of before there was a number
        assert again.as_json() == result.as_json()
    with pytest.raises(BadResult, match="it is a result of `compilepool bench pool`"):
        Result.from_json(pools.as_json(), "compile")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"samples": None}, "is missing, or is of another kind"),
        ({"about": []}, "is missing, or is of another kind"),
        ({"bench": 7}, "it is no result of a bench"),
        (
            {"schema": 2, "bench": 7},
            "its schema is 2, and the last one that is known here is 1: a newer pytest-comp",
        ),
        ({"schema": "1"}, "its schema, '1', is no whole number from 1"),
        ({"schema": True}, "its schema, True, is no whole number from 1"),
        ({"about": {"cpus": "many"}}, "`about.cpus`: 'many' is no number"),
        ({"about": {"versions": 7}}, "`about.versions` is no object"),
        ({"samples": [{}]}, "a sample of it cannot be read: KeyError"),
        ({"samples": [7]}, "a sample of it cannot be read: AttributeError"),
        ({"samples": [{"primed": "no"}]}, "ValueError: primed 'no'"),
        ({"samples": [{"round": 0, "processes": 2, "figures": {"total": 10**400}}]}, "10{39} is no number"),
        ({"samples": [{"round": 0, "processes": True, "figures": {}}]}, "True is no whole number"),
        ({"samples": [{"round": 0, "processes": 2, "figures": {"total": "x"}}]}, "'x' is no number"),
        ({"samples": [{"round": 0, "processes": 2, "figures": {"total": float("nan")}}]}, "nan is no number"),
        ({"samples": [{"round": 0, "processes": 2, "figures": []}]}, "AttributeError"),
    ],
)
def test_a_file_that_is_none_is_refused(pools, change, says):
    with pytest.raises(BadResult, match=says):
        Result.from_json({**pools.as_json(), **change}, "pool")


def test_a_compile_without_its_figures_is_refused(compiled):
    del compiled.samples[0].figures["through"]
    with pytest.raises(BadResult, match="a sample of it has no figure `through`"):
        Result.from_json(compiled.as_json(), "compile")
