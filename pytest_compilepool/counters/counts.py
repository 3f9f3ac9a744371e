# SPDX-License-Identifier: Apache-2.0
"""Numbers by the name of their counter, and what kinds of number there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping

from pytest_compilepool.counters.errors import HIDDEN

__tracebackhide__ = HIDDEN

_SENTENCES = ("graph_break.", "unimplemented.")
_TIME = ("_us", "_ns", "_ms", "_s")
# How often something was measured, which is as often as it took.
_MEASUREMENTS = ("inductor.benchmarking.", "inductor.coordesc_tuning_bench")


def is_measured(name: str) -> bool:
    """Whether a counter holds measurements (of time, or how many it took): it never moves the same twice."""
    # What a graph break says may end like a time, too; it is a sentence, and no measurement.
    timed = name.endswith(_TIME) and bool(re.fullmatch(r"[\w.]+", name)) and not name.startswith(_SENTENCES)
    return timed or name.startswith(_MEASUREMENTS)


class Distinct(int):
    """How many there are that did something; knows who did what, so that a difference counts those of a span."""

    doings: frozenset[tuple[Hashable, Hashable]]
    """(what was done, who did it)"""

    @classmethod
    def of(cls, doings: frozenset[tuple[Hashable, Hashable]]) -> Distinct:
        """doings: (what was done, who did it)."""
        number = cls(len({who for _, who in doings}))
        number.doings = doings
        return number


def difference(before: int, after: int) -> int:
    """By how much a counter moved. Of `Distinct`: how many did something between the two, also if before, too."""
    if isinstance(after, Distinct):
        earlier = before.doings if isinstance(before, Distinct) else frozenset()
        return len({who for _, who in after.doings - earlier})
    return after - before


class Counts(Mapping[str, int]):
    """Numbers by dotted name. A counter that never moved is 0; one that does not exist raises UnknownCounter.

    Iterates over those that are not 0, so two are equal where the same counters are, and equal to a dict of them.
    """

    def __init__(self, numbers: Mapping[str, int], check: Callable[[str], None], note: str = "") -> None:
        self._numbers = {name: number for name, number in sorted(numbers.items()) if number}
        self._check = check
        self._note = note

    def __getitem__(self, name: str) -> int:
        if name in self._numbers:
            return self._numbers[name]
        self._check(name)
        return 0

    def get(self, name: str, default: object = None) -> int:
        """As `[name]`: a name that does not exist is an error here, too, or a typing error would always be 0."""
        return self[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._numbers == {name: number for name, number in other.items() if number != 0}

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return repr(self._numbers) + (f" ({self._note})" if self._note else "")
