# SPDX-License-Identifier: Apache-2.0
"""How a recording of real starts is falsified: each gives a function that changes one thing in one of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

Runs = dict[str, dict[str, Any]]
Tell = Callable[[Runs], None]
Lies = dict[str, list[tuple[str, Tell]]]
"""By feature: what its scenario must say, and of what lie."""

COLD, WARM = "default-pool-cold", "default-pool-warm"
ALONE, ALONE_WARM = "default-alone-cold", "default-alone-warm"
KERNELS = "kernels"
STRANGER = 4_000_000
"""A pid that nobody in the recordings has."""


def put(value: Any, run: str, *path: str | int) -> Tell:
    """Another value in that place of that run."""

    def tell(runs: Runs) -> None:
        place: Any = runs[run]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return tell


def add(number: float, run: str, *path: str | int) -> Tell:
    """That much more in a place, which is 0 where it is not there."""

    def tell(runs: Runs) -> None:
        place: Any = runs[run]
        for step in path[:-1]:
            place = place[step]
        old = place.get(path[-1], 0) if isinstance(place, dict) else place[path[-1]]
        place[path[-1]] = old + number

    return tell


def counted(number: int, counter: str, *runs: str) -> Tell:
    """That much more of a counter, in the first engine of each of these runs."""
    return both(*(add(number, run, "engines", 0, "counters", counter) for run in runs))


def event(what: str, run: str, **changes: Any) -> Tell:
    """Every event of that name has these entries, or these in its detail."""

    def tell(runs: Runs) -> None:
        for one in events_of(runs, run, what):
            for name, value in changes.items():
                (one if name in one else one["detail"])[name] = value

    return tell


def missing(what: str, run: str) -> Tell:
    """No event of that name."""

    def tell(runs: Runs) -> None:
        for one in events_of(runs, run, what):
            runs[run]["events"].remove(one)

    return tell


def later(what: str, than: str, run: str) -> Tell:
    """The first event of one name comes just after the first of another."""

    def tell(runs: Runs) -> None:
        moved, fixed = events_of(runs, run, what)[0], events_of(runs, run, than)[0]
        moved["at"] = fixed["at"] + 1e-6
        runs[run]["events"].sort(key=lambda one: one["at"])

    return tell


def besides(what: str, run: str, like: str = "", **detail: Any) -> Tell:
    """An event more, at the end. like: the name of one that it is a copy of."""

    def tell(runs: Runs) -> None:
        events = runs[run]["events"]
        made = {
            "what": what,
            "at": 0.0,
            "pid": runs[run]["pid"],
            "state": "absent",
            "took": None,
            "detail": {},
        }
        if like:
            made = copy.deepcopy(events_of(runs, run, like)[0])
        made.update(what=what, at=events[-1]["at"] + 1.0 if events else 1.0)
        made["detail"].update(detail)
        events.append(made)

    return tell


def both(*tells: Tell) -> Tell:
    """One after the other."""

    def tell(runs: Runs) -> None:
        for one in tells:
            one(runs)

    return tell


def failed(run: str) -> Tell:
    """There was no engine."""
    return both(put([], run, "engines"), put("RuntimeError: no memory", run, "error"))


def survivor(run: str) -> Tell:
    return put(["python compile_worker --parent=7"], run, "survivors")


def segments(run: str) -> Tell:
    return put(["vllm_dist_7-tp:0-[0-1]-cpushm_0"], run, "shared")


def last_bit(run: str) -> Tell:
    """The last logprob is the next number above it."""

    def tell(runs: Runs) -> None:
        told = runs[run]["engines"][0]["logprobs"][-1]
        told[-1] = math.nextafter(told[-1], 0.0)

    return tell


def another_token(run: str, engine: int = 0) -> Tell:
    return add(1, run, "engines", engine, "tokens", 1, 3)


def events_of(runs: Runs, run: str, what: str) -> list[dict[str, Any]]:
    found = [one for one in runs[run]["events"] if one["what"] == what]
    assert found, f"{run} has no event {what}"
    return found
