# SPDX-License-Identifier: Apache-2.0
"""A block with an expectation: every mismatch in one table, however the block ends."""

from __future__ import annotations

import re
import sys

import pytest

from pytest_compilepool.counters import BadInput, CountersDiffer, at_least, unchanged


def lines_of(text: str) -> list[list[str]]:
    """The words of each line, so that the width of a column does not matter."""
    return [line.split() for line in text.splitlines()]


def run(counters, expected, body, exact=False):
    with counters.expect(expected, exact=exact) as block:
        body()
    return block


def refused(counters, expected, body, exact=False) -> str:
    """The table with which the block was refused."""
    with pytest.raises(CountersDiffer) as caught:
        run(counters, expected, body, exact)
    return str(caught.value)


def test_all_mismatches_in_one_table_and_all_else_that_moved_below(counters, mine):
    table = refused(
        counters,
        {
            "mine.things": 1,
            "mine.cache_hit": 2,
            "mine.never_moved": at_least(1),
            "mine.things_saved": 1,
            "mine.cache_miss": unchanged,
        },
        lambda: mine.add(things=4, cache_hit=1, things_saved=1, other=7, build_time_us=12345),
    )
    assert lines_of(table) == [
        ["compile", "counters", "did", "not", "move", "as", "expected:"],
        ["counter", "expected", "before", "after", "difference"],
        ["mine.things", "1", "5", "9", "+4"],
        ["mine.cache_hit", "2", "2", "3", "+1", "worse"],
        ["mine.never_moved", "at", "least", "1", "0", "0", "0"],
        ["also", "moved:"],
        ["mine.things_saved", "1", "1", "2", "+1", "as", "expected"],
        ["mine.other", "0", "7", "+7"],
        ["mine.build_time_us", "0", "12345", "+12345", "measured"],
    ]
    head, first, second = table.splitlines()[1:4]
    end = len(head.rstrip())
    assert (first[:end].endswith("  +4"), second[:end].endswith("  +1")) == (True, True)


def test_what_holds_is_silent(counters, mine):
    with counters.expect({"mine.things": 2, "mine.never_moved": 0}):
        mine.add(things=2, other=1)


@pytest.mark.parametrize("moved", ["other", "cache_hit"])
def test_exact_forbids_all_else(counters, mine, moved):
    table = refused(counters, {"mine.things": 1}, lambda: mine.add(things=1, **{moved: 1}), exact=True)
    assert f"mine.{moved} unchanged" in " ".join(table.split())


def test_exact_passes_over_measurements_of_time_only(counters, mine):
    with counters.expect({"mine.things": 1}, exact=True):
        mine.add(things=1, spent_us=5, spent_ns=5, spent_s=5)
    with counters.expect({}, exact=True):
        pass
    with counters.expect({"mine.spent_us": at_least(4)}, exact=True):
        mine.add(spent_us=5)
    table = refused(counters, {"mine.spent_us": at_least(6)}, lambda: mine.add(spent_us=5), exact=True)
    assert ["mine.spent_us", "at", "least", "6", "10", "15", "+5"] in lines_of(table)


@pytest.mark.parametrize(
    ("name", "expected", "moves", "word"),
    [
        ("mine.cache_hit", 1, {"cache_hit": 3}, "better"),
        ("mine.cache_hit", 3, {"cache_hit": 1}, "worse"),
        ("mine.cache_miss", 3, {"cache_miss": 1}, "better"),
        ("mine.cache_miss", 0, {"cache_miss": 1}, "worse"),
        ("mine.artifacts_loaded", 0, {"artifacts_loaded": 4}, "better"),
        # vllm#38051 and pytorch#180912: a warm start that saves nothing any more, since it loads now.
        ("mine.artifacts_saved", 4, {"artifacts_loaded": 4}, "better"),
        ("mine.artifacts_saved", 4, {}, ""),
        ("mine.artifacts_saved", 0, {"artifacts_saved": 4}, ""),
        ("mine.things", 0, {"things": 4}, ""),
        ("mine.permission", 1, {}, ""),
        ("pool.jobs_failed", at_least(1), {}, "better"),
    ],
)
def test_the_direction_is_said_where_it_is_plain(counters, mine, name, expected, moves, word):
    mine.add(artifacts_saved=1, artifacts_loaded=1, permission=1)
    table = refused(counters, {name: expected}, lambda: mine.add(**moves))
    (row,) = [line for line in lines_of(table) if line[:1] == [name]]
    assert [cell for cell in row if cell in ("better", "worse")] == ([word] if word else [])


def test_blocks_within_blocks(counters, mine):
    with counters.expect({"mine.things": 3}):
        with counters.expect({"mine.things": 1}) as inner:
            mine.add(things=1)
        with counters.expect({"mine.things": 2}, exact=True):
            mine.add(things=2)
        assert inner.moved() == {"mine.things": 1}


def test_a_block_within_a_block_that_was_refused(counters, mine):
    def body():
        refused(counters, {"mine.things": 2}, lambda: mine.add(things=1))
        mine.add(things=1)

    table = refused(counters, {"mine.things": 3}, body)
    assert ["mine.things", "3", "5", "7", "+2"] in lines_of(table)


def test_the_error_of_the_block_comes_first_and_takes_the_table_along(counters, mine):
    def body():
        mine.add(things=1)
        _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        run(counters, {"mine.cache_hit": 1}, body)
    table = counters.describe()
    assert "compile counters did not move as expected (the block ended with ZeroDivisionError):" in table
    assert ["mine.cache_hit", "1", "2", "2", "0"] in lines_of(table)
    assert counters.swallowed in table
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == [counters.swallowed]


def test_an_error_without_a_mismatch_takes_nothing_along(counters, mine):
    def body():
        mine.add(things=1)
        _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        run(counters, {"mine.things": 1}, body)
    assert counters.swallowed == ""
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("leave", [pytest.skip, pytest.xfail])
def test_a_test_that_ends_itself_is_not_judged(counters, leave):
    with pytest.raises(leave.Exception), counters.expect({"mine.things": 1}):
        leave("not here")
    assert counters.swallowed == ""


def test_a_failure_in_the_block_is_judged(counters):
    with pytest.raises(pytest.fail.Exception), counters.expect({"mine.things": 1}):
        pytest.fail("wrong")
    assert "mine.things" in counters.swallowed


def test_a_counter_that_was_set_back(counters, mine):
    rows = lines_of(
        refused(counters, {"mine.things": at_least(0)}, lambda: mine.numbers.update(things=1, cache_miss=0))
    )
    assert ["mine.things", "at", "least", "0", "5", "1", "-4", "cleared", "meanwhile"] in rows
    assert ["mine.cache_miss", "3", "0", "-3", "cleared", "meanwhile"] in rows


def test_torchs_counters_cleared_in_the_block(counters):
    """A miss before, none after: the difference alone would be one that did not happen."""
    from torch._dynamo.utils import counters as torchs

    def body():
        torchs["inductor"]["fxgraph_cache_miss"] += 1
        torchs.clear()
        torchs["aot_autograd"]["autograd_cache_miss"] = before + 1

    torchs["aot_autograd"]["autograd_cache_miss"] += 1
    before = torchs["aot_autograd"]["autograd_cache_miss"]
    torchs["inductor"].clear()
    rows = lines_of(refused(counters, {"inductor.fxgraph_cache_miss": 0}, body))
    assert ["inductor.fxgraph_cache_miss", "0", "0", "0", "0", "cleared", "meanwhile"] in rows


def test_cleared_before_anything_was_counted(counters):
    """Nothing was there to be missed, and nothing is: both readings are empty."""
    from torch._dynamo.utils import counters as torchs

    def body():
        torchs["inductor"]["fxgraph_cache_miss"] += 1
        torchs.clear()

    torchs.clear()
    table = refused(counters, {"inductor.fxgraph_cache_miss": 0}, body)
    assert "cleared meanwhile" in table
    torchs.clear()
    rows = lines_of(refused(counters, {}, body, exact=True))
    assert ["torch.*", "unchanged", "0", "0", "0", "cleared", "meanwhile"] in rows


def test_torchs_own_copying_is_no_clearing(counters):
    """Its pattern matcher puts a copy of its group in the place of the group."""
    from torch._dynamo.utils import counters as torchs

    torchs["inductor"]["pattern_matcher_count"] += 1
    with counters.expect({"inductor.pattern_matcher_count": 2}):
        torchs["inductor"] = torchs["inductor"].copy()
        torchs["inductor"]["pattern_matcher_count"] += 2


def test_a_source_that_failed(counters, mine):
    def body():
        mine.error = OSError("gone")

    sentence = "counter source 'mine' cannot tell: read() raised OSError: gone"
    with pytest.warns(pytest.PytestWarning, match=re.escape(sentence)):
        run(counters, {"pool.jobs_done": 0}, body)
    for expected, exact in (
        ({"mine.things": 0}, False),
        ({"pool.jobs_done": 0}, True),
        ({"pool.jobs_done": 1}, False),
    ):
        mine.error = None
        assert refused(counters, expected, body, exact).count(sentence) == 1


def test_moved_and_read_are_mappings(counters, mine):
    assert counters.moved() == {}
    mine.add(things=2, cache_hit=1)
    moved = counters.moved()
    assert moved == {"mine.things": 2, "mine.cache_hit": at_least(1)}
    assert list(moved) == ["mine.cache_hit", "mine.things"]
    assert moved["mine.never_moved"] == 0
    assert moved["inductor.fxgraph_cache_miss"] == 0
    assert "mine.never_moved" not in moved
    assert counters.read()["mine.things"] == 7
    with pytest.raises(KeyError, match=r"no counter 'mine\.thing'; the nearest are: mine\.things"):
        moved["mine.thing"]
    with pytest.raises(KeyError, match=r"the nearest are: mine\.things"):
        moved.get("mine.thing", 0)


def test_what_a_failed_test_shows(counters, mine):
    assert counters.describe() == "nothing moved"
    mine.add(things=2, time_us=7)
    assert lines_of(counters.describe()) == [
        ["counter", "before", "after", "difference"],
        ["mine.things", "5", "7", "+2"],
        ["mine.time_us", "0", "7", "+7", "measured"],
    ]


def test_long_names_stay_on_one_line(counters):
    from torch._dynamo.utils import counters as torchs

    def body():
        torchs["graph_break"]["because\n  of this " + "and that " * 30] += 1

    table = refused(counters, {}, body, exact=True)
    del torchs["graph_break"]
    assert len(table.splitlines()) == 3
    assert max(map(len, table.splitlines())) < 160


def test_blocks_that_nobody_judged_are_told(counters, mine):
    never = counters.expect({"mine.things": 1})
    assert counters.swallowed == "compile_counters.expect: a block was never entered (is `with` missing?)"
    with never:
        assert counters.swallowed == "compile_counters.expect: a block was entered and never left"
        with (
            pytest.raises(BadInput, match="this block is under way; allowed: one `with` for each block"),
            never,
        ):
            pass
        mine.add(things=1)
    assert counters.swallowed == ""


def test_an_exit_that_somebody_caught_is_judged(counters, mine):
    with pytest.raises(SystemExit):
        run(counters, {"mine.things": 0}, lambda: (mine.add(things=1), sys.exit(1)))
    assert "(the block ended with SystemExit)" in counters.swallowed


def test_a_generator_that_is_left_early_is_judged(counters, mine):
    def generator():
        with counters.expect({"mine.things": 0}):
            mine.add(things=1)
            yield

    going = generator()
    next(going)
    going.close()
    assert "(the block ended with GeneratorExit)" in counters.swallowed


@pytest.mark.parametrize("end", [KeyboardInterrupt, pytest.exit.Exception])
def test_who_ends_the_run_gets_no_table(counters, mine, end):
    def body():
        mine.add(things=1)
        raise end("now")

    with pytest.raises(end):
        run(counters, {"mine.things": 0}, body)
    assert counters.swallowed == ""


def test_addresses_in_the_names_of_graph_breaks_are_no_names(counters):
    """They are others in every process, and so could never be compared."""
    from torch._dynamo.utils import counters as torchs

    sentence = "Skip inlining `torch.compiler.disable()`d function <function f at 0x{}>"
    with counters.expect({"graph_break." + sentence.format("..."): 3}):
        torchs["graph_break"][sentence.format("7f4f12345678")] += 1
        torchs["graph_break"][sentence.format("55aa87654321")] += 2


def test_what_moved_equals_a_mapping_with_zeros(counters, mine):
    with counters.expect({"mine.things": 1}) as block:
        mine.add(things=1)
    assert block.moved() == {"mine.things": 1, "mine.other": 0}
    assert block.moved() != {"mine.things": 1, "mine.other": 1}
    assert block.moved() != 1
