# SPDX-License-Identifier: Apache-2.0
"""Rounds that alternate, and their medians: what the machine does besides must not fall on one side only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

Row = Mapping[str, float]
"""Figures of one measurement, by name."""


def turns(sides: Sequence[T], rounds: int) -> list[tuple[int, T]]:
    """So many rounds, each with every side once, forwards and backwards in turn: (number of the round from 0, side)."""
    return [
        (number, side)
        for number in range(rounds)
        for side in (sides if number % 2 == 0 else list(reversed(sides)))
    ]


def medians(rows: Iterable[Row]) -> dict[str, float]:
    """By name, over the rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def ratio(name: str, ours: Mapping[int, Row], theirs: Mapping[int, Row]) -> float | None:
    """Median over the rounds, given by number, of theirs divided by ours: 2.0 where ours took half as long.

    None without a round that both have, with a figure that is not 0.
    """
    each = [
        theirs[number][name] / ours[number][name]
        for number in ours.keys() & theirs.keys()
        if theirs[number].get(name) and ours[number].get(name)
    ]
    return statistics.median(each) if each else None
