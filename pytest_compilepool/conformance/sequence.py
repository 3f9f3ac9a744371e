# SPDX-License-Identifier: Apache-2.0
"""In which order features are tried, so that nobody waits for one of them in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

_LAST = 0.8
"""Share of those before the short ones among which those that hang are spread."""


def in_sequence(
    every: Sequence[T],
    hangs: Callable[[T], bool],
    shares: Callable[[T], bool],
    limit: Callable[[T], float],
) -> list[T]:
    """The same ones: those that take long first, those that share an interpreter, which are short, last.

    Those that are known to hang, which wait for a bound and use no CPU, evenly among the long ones: all at the same time
    they would leave the machine idle, and at the end everybody would wait for them. limit: seconds that one may take, which
    is the longer the more there is to do.
    """
    hanging = [one for one in every if hangs(one)]
    short = [one for one in every if not hangs(one) and shares(one)]
    long = sorted((one for one in every if not hangs(one) and not shares(one)), key=lambda one: -limit(one))
    ordered: list[T] = []
    for number, one in enumerate(long):
        due = len(hanging) * (number + 1) // max(1, round(_LAST * len(long)))
        ordered += hanging[len(ordered) - number : min(due, len(hanging))]
        ordered.append(one)
    return [*ordered, *hanging[len(ordered) - len(long) :], *short]
