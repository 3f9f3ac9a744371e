# SPDX-License-Identifier: Apache-2.0
"""What a counter is expected to move by: a number, or one of the conditions."""

from __future__ import annotations

from pytest_compilepool.counters.errors import HIDDEN, BadInput

__tracebackhide__ = HIDDEN

ALLOWED = "a whole number from 0, at_least(n), at_most(n), between(a, b) or unchanged"


class Condition:
    """The whole numbers from `low` to `high`, both included; high: None where there is no limit.

    Equal to every number that it includes, so `assert moved["pool.jobs_done"] == at_least(1)` works.
    """

    def __init__(self, low: int, high: int | None, text: str) -> None:
        self.low = low
        self.high = high
        self._text = text

    def side(self, number: int) -> int:
        """-1 where the number is too low, 1 where it is too high, else 0."""
        if number < self.low:
            return -1
        return int(self.high is not None and number > self.high)

    def __call__(self) -> Condition:
        """Itself: who writes `unchanged()` means `unchanged`."""
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Condition):
            return (self.low, self.high) == (other.low, other.high)
        if isinstance(other, int) and not isinstance(other, bool):
            return self.side(other) == 0
        return NotImplemented

    # Equal to more than one number: no hash would do.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return self._text


def at_least(n: int) -> Condition:
    """n or more. n: from 0. Raises BadInput."""
    return Condition(_number(n, "at_least"), None, f"at least {n}")


def at_most(n: int) -> Condition:
    """n or less, and not cleared meanwhile. n: from 0. Raises BadInput."""
    return Condition(0, _number(n, "at_most"), f"at most {n}")


def between(a: int, b: int) -> Condition:
    """a, b, or a number between them. a, b: from 0, a not above b. Raises BadInput."""
    low, high = _number(a, "between"), _number(b, "between")
    if low > high:
        raise BadInput(f"between({a}, {b}): no number is between them; allowed: the lower one first")
    return Condition(low, high, f"{a} to {b}")


unchanged = Condition(0, 0, "unchanged")
"""Not moved at all."""


def exactly(n: int) -> Condition:
    """n and no other number."""
    return Condition(n, n, str(n))


def condition_of(value: object, origin: str) -> Condition:
    """What stands for an expected value. origin: where it came from, in words. Raises BadInput."""
    if isinstance(value, Condition):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return exactly(value)
    shown = f"{getattr(value, '__name__', value)} without a number" if callable(value) else repr(value)
    raise BadInput(f"{origin}: {shown} is not allowed; allowed: {ALLOWED}")


def _number(value: object, function: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise BadInput(f"{function}: {value!r} is not allowed; allowed: whole numbers from 0")
