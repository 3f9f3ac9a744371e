# SPDX-License-Identifier: Apache-2.0
"""What can be expected of a counter, and what cannot be meant."""

from __future__ import annotations

import pytest

from pytest_compilepool.counters import BadInput, at_least, at_most, between, unchanged
from pytest_compilepool.counters.conditions import condition_of


@pytest.mark.parametrize(
    ("condition", "low", "fine", "high"),
    [
        (at_least(2), [0, 1], [2, 3, 10**12], []),
        (at_most(2), [-1], [0, 2], [3]),
        (between(2, 4), [0, 1], [2, 3, 4], [5]),
        (between(3, 3), [2], [3], [4]),
        (unchanged, [-1], [0], [1]),
        (unchanged(), [-1], [0], [1]),
        (condition_of(2, "here"), [1], [2], [3]),
        (condition_of(0, "here"), [-1], [0], [1]),
    ],
    ids=repr,
)
def test_which_numbers_it_includes(condition, low, fine, high):
    for side, numbers in ((-1, low), (0, fine), (1, high)):
        for number in numbers:
            assert condition.side(number) == side
            assert (number == condition) is (side == 0)
            assert (condition != number) is (side != 0)


def test_it_is_no_truth_value_and_no_text():
    assert at_least(1) != True  # noqa: E712 - that is what is asked
    assert at_least(1) != "1"
    assert at_least(1) == at_least(1)
    assert at_least(1) != at_least(2)


def test_an_assertion_shows_what_was_expected(inner):
    result = inner(
        """
        from pytest_compilepool.counters import at_least

        def test_one(compile_counters):
            assert compile_counters.moved()["pool.jobs_done"] == at_least(1)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*assert 0 == at least 1"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: at_least(-1), "at_least: -1 is not allowed; allowed: whole numbers from 0"),
        (lambda: at_least(True), "at_least: True is not allowed; allowed: whole numbers from 0"),
        (lambda: at_most("3"), "at_most: '3' is not allowed; allowed: whole numbers from 0"),
        (lambda: at_most(1.0), "at_most: 1.0 is not allowed; allowed: whole numbers from 0"),
        (
            lambda: between(5, 2),
            "between(5, 2): no number is between them; allowed: the lower one first",
        ),
        (lambda: between(None, 2), "between: None is not allowed; allowed: whole numbers from 0"),
    ],
)
def test_a_condition_that_cannot_be_meant(make, said):
    with pytest.raises(BadInput) as caught:
        make()
    assert str(caught.value) == said


ALLOWED = "allowed: a whole number from 0, at_least(n), at_most(n), between(a, b) or unchanged"


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (
            [("mine.things", 1)],
            "compile_counters.expect: [('mine.things', 1)] is not allowed; allowed: a mapping from names of counters",
        ),
        ({}, "compile_counters.expect: {} expects nothing; allowed: at least one counter, or exact=True"),
        ({"mine.things": True}, f"compile_counters.expect: 'mine.things': True is not allowed; {ALLOWED}"),
        ({"mine.things": "1"}, f"compile_counters.expect: 'mine.things': '1' is not allowed; {ALLOWED}"),
        ({"mine.things": 1.0}, f"compile_counters.expect: 'mine.things': 1.0 is not allowed; {ALLOWED}"),
        ({"mine.things": -1}, f"compile_counters.expect: 'mine.things': -1 is not allowed; {ALLOWED}"),
        ({"mine.things": None}, f"compile_counters.expect: 'mine.things': None is not allowed; {ALLOWED}"),
        (
            {"mine.things": at_least},
            "compile_counters.expect: 'mine.things': at_least without a number is not allowed;",
        ),
        ({3: 1}, "compile_counters.expect: 3 is not allowed as the name of a counter; allowed: a text"),
    ],
)
def test_an_expectation_that_cannot_be_meant(counters, expected, said):
    with pytest.raises(BadInput) as caught:
        counters.expect(expected)
    assert str(caught.value).startswith(said)


def test_exact_is_a_switch(counters):
    with pytest.raises(BadInput, match="exact: 'no' is not allowed; allowed: True or False"):
        counters.expect({"mine.things": 1}, exact="no")


def test_the_conditions_are_on_the_fixture_too(counters, mine):
    with counters.expect(
        {
            "mine.things": counters.at_least(2),
            "mine.cache_hit": counters.between(1, 1),
            "mine.cache_miss": counters.at_most(0),
            "mine.never_moved": counters.unchanged,
        }
    ):
        mine.add(things=3, cache_hit=1)
