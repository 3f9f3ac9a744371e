# SPDX-License-Identifier: Apache-2.0
"""What one test did with pools and left behind, as plain values that survive the way to xdist's controller."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_compilepool.records import Event, Jobs

PROPERTY = "compilepool.pool"
LEAKS_PROPERTY = "compilepool.leaks"
REPORT_ATTRIBUTE = "compilepool_leaks"
UNUSED_ATTRIBUTE = "compilepool_unused_allowances"

TIMED = ("warm", "ready", "primed", "recycle", "wakeup", "quiesce", "shutdown")
"""Events whose lengths the summary shows."""


# Not a dataclass: every session loads this file, and making one takes longer than loading the rest of it.
class TestRecord:
    """One test. times: event name -> lengths in seconds; reasons: why a sidecar was not shared;
    notes: lines for the summary."""

    __test__ = False

    def __init__(self) -> None:
        self.started = 0
        self.made_by_torch = 0
        self.ahead = 0
        self.jobs: dict[str, int] = {}
        self.times: dict[str, list[float]] = {}
        self.reasons: list[str] = []
        self.notes: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be told."""
        return not any(vars(self).values())

    def add_news(self, events: Iterable[Event], jobs: Jobs) -> None:
        """Count in what happened to pools."""
        for name, number in asdict(jobs).items():
            if number:
                self.jobs[name] = self.jobs.get(name, 0) + number
        for event in events:
            if event.what in TIMED and event.took is not None:
                self.times.setdefault(event.what, []).append(round(event.took, 5))

    def as_text(self) -> str:
        """JSON, one line."""
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> TestRecord:
        """The reverse; unknown keys are ignored."""
        record = cls()
        known = vars(record)
        known.update({key: value for key, value in json.loads(text).items() if key in known})
        return record

    def add(self, other: TestRecord) -> None:
        """Count another one in."""
        self.started += other.started
        self.made_by_torch += other.made_by_torch
        self.ahead += other.ahead
        for name, number in other.jobs.items():
            self.jobs[name] = self.jobs.get(name, 0) + number
        for name, lengths in other.times.items():
            self.times.setdefault(name, []).extend(lengths)
        self.reasons.extend(other.reasons)
        self.notes.extend(other.notes)


def find_property(properties: Iterable[tuple[str, Any]], name: str) -> str | None:
    """The last value of a user property, or None."""
    values = [value for key, value in properties if key == name]
    return str(values[-1]) if values else None
