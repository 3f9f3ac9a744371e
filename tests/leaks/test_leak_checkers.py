# SPDX-License-Identifier: Apache-2.0
"""What a checker gets for free, what is accepted as one, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Hashable
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from toys import Toy, ToyOfValues

from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import LeakChecker, Owned, check_checkers, same, show
from pytest_compilepool.records import Leak, Snapshot


class TestDefaults:
    def test_new_key_is_a_leak(self) -> None:
        (leak,) = Toy().diff({"a": 1}, {"a": 1, "b": 2})
        assert (leak.checker, leak.key, leak.before, leak.after) == ("toy", "b", "not there", "2")

    @pytest.mark.parametrize("after", [{}, {"a": 2}])
    def test_values_and_removals_do_not_count(self, after: Snapshot) -> None:
        assert Toy().diff({"a": 1}, after) == []

    def test_values_and_removals_count_where_values_are_judged(self) -> None:
        leaks = ToyOfValues().diff({"a": 1, "b": 1}, {"a": 2})
        assert [(leak.key, leak.before, leak.after) for leak in leaks] == [
            ("a", "1", "2"),
            ("b", "1", "gone"),
        ]

    def test_text_has_everything(self) -> None:
        leak = Leak("toy", "thing", "was so", "is so\nand so", "somebody", "yesterday")
        assert Toy().format(leak).splitlines() == [
            "toy: thing",
            "    Before:  was so",
            "    After:   is so",
            "             and so",
            "    Made by: somebody",
            "    Since:   yesterday",
            '    Silence: @pytest.mark.compilepool_leaks(allow=["toy:thing"], reason="...")',
        ]

    def test_values_that_cannot_be_compared(self) -> None:
        class Odd:
            def __eq__(self, other: object) -> bool:
                raise RuntimeError("ambiguous")

            __hash__ = None  # type: ignore[assignment]

            def __repr__(self) -> str:
                raise RuntimeError("half made")

        odd = Odd()
        assert same(odd, odd)
        assert not same(odd, Odd())
        assert show(odd) == "<Odd without a repr>"

    def test_long_value_is_cut(self) -> None:
        assert len(show("x" * 1000)) == 200


class Failing(Toy):
    """Fails in one method, by an error or by what it returns."""

    name: ClassVar[str] = "failing"

    def __init__(self, method: str, answer: object = None) -> None:
        super().__init__()
        self.method = method
        self.answer = answer
        self.asked = 0

    def _fail(self, method: str, otherwise: Any) -> Any:
        if method != self.method:
            return otherwise
        self.asked += 1
        if self.answer is None:
            raise ValueError("boom")
        return self.answer

    def measure(self) -> Any:
        return self._fail("measure", super().measure())

    def diff(self, before: Snapshot, after: Snapshot) -> Any:
        return self._fail("diff", super().diff(before, after))

    def silent(self, before: Snapshot, after: Snapshot) -> Any:
        return self._fail("silent", super().silent(before, after))

    def describe(self, key: Hashable, old: Any, new: Any) -> Any:
        return self._fail("describe", super().describe(key, old, new))

    def format(self, leak: Leak) -> Any:
        return self._fail("format", super().format(leak))


class TestFailingChecker:
    """Somebody else's checker that is wrong stops nobody, and is named."""

    @pytest.mark.parametrize("method", ["measure", "diff", "silent", "describe"])
    def test_error_is_told_once_and_the_others_go_on(self, method: str) -> None:
        failing, other = Failing(""), Toy()
        checkers = [failing, other]
        before = census.measure(checkers)
        failing.method = method
        failing.things = {"x": 1}
        other.things = {"a": 1}
        verdict = census.compare(checkers, before, grace=0.05)
        assert [leak.key for leak in verdict.leaks] == ["a"]
        assert verdict.errors == [f"leak checker 'failing' cannot tell: {method}() raised ValueError: boom"]
        assert failing.asked == 1

    def test_error_before_the_test_is_told_after_it(self) -> None:
        failing, other = Failing("measure"), Toy()
        before = census.measure([failing, other])
        assert before.snapshots == {"failing": None, "toy": {}}
        assert len(before.errors) == 1
        other.things = {"a": 1}
        verdict = census.compare([failing, other], census.merged(before, {}), 0.0)
        assert [leak.key for leak in verdict.leaks] == ["a"]
        assert verdict.errors == before.errors

    @pytest.mark.parametrize(
        ("method", "answer", "allowed"),
        [
            ("measure", [1, 2], "allowed is a mapping or None"),
            ("diff", "abc", "allowed is a list of Leak"),
            ("diff", [1], "allowed is a list of Leak of checker 'failing'"),
            ("diff", [Leak("other", "a", "", "")], "allowed is a list of Leak of checker 'failing'"),
            ("silent", 7, "allowed is a list of Leak"),
        ],
    )
    def test_wrong_answer_is_told(self, method: str, answer: object, allowed: str) -> None:
        failing = Failing("")
        before = census.measure([failing])
        failing.method, failing.answer = method, answer
        verdict = census.compare([failing], before, 0.0)
        assert verdict.leaks == []
        (error,) = verdict.errors
        assert error.startswith(f"leak checker 'failing' cannot tell: {method}() returned ")
        assert allowed in error

    def test_mapping_that_is_no_dict(self) -> None:
        toy = Toy()
        before = census.measure([toy])
        toy.measure = lambda: MappingProxyType({"a": 1})  # type: ignore[assignment, method-assign, return-value]
        assert [leak.key for leak in census.compare([toy], before, 0.0).leaks] == ["a"]

    @pytest.mark.parametrize("answer", [None, 5])
    def test_text_falls_back_to_a_plain_one(self, answer: object) -> None:
        text = census.text_of(Failing("format", answer), Leak("failing", "a", "was so", "is so"))
        assert text.startswith("failing: a\n    Before:  was so\n    After:   is so\n")
        assert "format() " in text

    def test_text_of_a_good_one_is_its_own(self) -> None:
        leak = Leak("toy", "a", "was so", "is so")
        assert census.text_of(Toy(), leak) == Toy().format(leak)

    def test_no_error_where_none_is(self) -> None:
        checkers = census.builtin_checkers(Owned())
        before = census.measure(checkers)
        assert before.errors == census.compare(checkers, before, 0.0).errors == []


class Nameless(LeakChecker):
    def measure(self) -> Snapshot | None:
        return {}


class TestCheckCheckers:
    """What a hook returned."""

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_good_ones_pass(self, kind: Any) -> None:
        toy = Toy()
        assert check_checkers(kind([toy]), "somewhere") == [toy]

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            (None, "None is of type NoneType; allowed is a list or tuple of LeakChecker instances"),
            ("abc", "'abc' is of type str"),
            (Toy(), "is of type Toy"),
            ([Toy], "Toy'> is in the list; allowed are instances"),
            ([1], "1 is in the list"),
            ([Nameless()], "the name of Nameless is None; allowed are lower-case letters"),
        ],
    )
    def test_others_do_not(self, values: object, told: str) -> None:
        with pytest.raises(ValueError, match=r"^leak checkers from the hook in x: ") as caught:
            check_checkers(values, "the hook in x")
        assert told in str(caught.value)

    @pytest.mark.parametrize("name", ["", "Toy", "a b", "a:b", "1a", 5])
    def test_bad_name(self, name: object) -> None:
        toy = Toy()
        toy.name = name  # type: ignore[assignment, misc]
        with pytest.raises(ValueError, match=f"the name of Toy is {name!r}; allowed"):
            check_checkers([toy], "somewhere")
