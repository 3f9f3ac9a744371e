# SPDX-License-Identifier: Apache-2.0
"""What a leak checker is: it measures, compares, puts right and puts into words.

A checker knows one kind of thing (threads, settings, ...). It keeps nothing between two measurements
that a verdict depends on (where one does, it says so), so any two of its snapshots can be compared.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pytest_compilepool.records import Leak, Snapshot
from pytest_compilepool.words import show as show


class _Missing(enum.Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
"""Stands for the value of a key that a snapshot does not have."""

Change = tuple[Hashable, Any, Any]
"""key, old value or MISSING, new value or MISSING"""


@dataclass
class Owned:
    """What the plugin's own session-wide pools own: the checkers pass over it.

    processes: pids (the descendants of an owned pid are owned too); threads: `Thread.ident`s; fds: file
    descriptors of this process; pools: `id()` of torch's pool objects; tag: the value of `proctree.TAG`
    that this session has set, or None. The functions are called at every measurement.
    """

    processes: Callable[[], set[int]] = set
    threads: Callable[[], set[int]] = set
    fds: Callable[[], set[int]] = set
    pools: Callable[[], set[int]] = set
    tag: str | None = None


class LeakChecker(abc.ABC):
    """One kind of thing that a test can leave behind. Subclass it and register it by hook.

    Only `name` and `measure` are needed: `diff` then reports every new key (and, with
    `judges_values`, every changed or removed one) in plain words, and `restore` does nothing.

    name: lower case, what `allow=[...]` takes. cheap: one measurement costs less than 50
    microseconds in a small process, so it can be done before every test. judges_values: the values matter,
    not only which keys there are. settles: waiting can make such a leak go away (a thread ends, a
    process exits); where it cannot (a variable, a setting) nobody waits.
    """

    name: ClassVar[str]
    cheap: ClassVar[bool] = False
    judges_values: ClassVar[bool] = False
    settles: ClassVar[bool] = True

    @abc.abstractmethod
    def measure(self) -> Snapshot | None:
        """How things stand now: key -> value. None: cannot be told now, and then nothing is judged."""

    def diff(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        """What of `after` was not so in `before`. Called again and again while the grace lasts."""
        leaks = (self.describe(*change) for change in self.judged(before, after))
        return [leak for leak in leaks if leak is not None]

    def silent(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        """What is put right without a word: by-products of ordinary work, not the test's doing."""
        return []

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        """The changes that count, as (key, old or MISSING, new or MISSING)."""
        for key, old, new in changes(before, after):
            if old is MISSING or self.judges_values:
                yield key, old, new

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak | None:
        """One change as a leak, or None where it is none after all. old, new: MISSING where not there."""
        before = "not there" if old is MISSING else show(old)
        after = "gone" if new is MISSING else show(new)
        return Leak(self.name, str(key), before, after, handle=(key, old))

    def restore(self, leaks: Sequence[Leak]) -> None:  # noqa: B027 - what cannot be restored needs no code
        """Put right what can be, within a bounded time. Raises nothing for what cannot be."""

    def format(self, leak: Leak) -> str:
        """The leak as several lines: what it is, before and after, who, since when, how to silence it."""
        return plain_text(leak, self.note(leak))

    def note(self, leak: Leak) -> str:
        """A sentence about what can be done, or an empty text."""
        return ""


def plain_text(leak: Leak, note: str = "") -> str:
    """A leak as several lines, with a note where there is one, without asking its checker."""
    rows = {
        "Before": leak.before,
        "After": leak.after,
        "Made by": leak.who,
        "Since": leak.since,
        "Note": note,
        "Silence": leak.silence,
    }
    lines = [_row(name, text) for name, text in rows.items() if text]
    return "\n".join([f"{leak.checker}: {leak.key}", *lines])


def check_checkers(values: object, origin: str) -> list[LeakChecker]:
    """What somebody gave as leak checkers, if it is that.

    values: a list or tuple of `LeakChecker` instances; origin: where it came from, in words. Raises ValueError.
    """
    if not isinstance(values, (list, tuple)):
        raise ValueError(
            f"leak checkers from {origin}: {show(values)} is of type {type(values).__name__}; "
            "allowed is a list or tuple of LeakChecker instances"
        )
    for value in values:
        if not isinstance(value, LeakChecker):
            raise ValueError(
                f"leak checkers from {origin}: {show(value)} is in the list; "
                "allowed are instances of subclasses of LeakChecker"
            )
        name: object = getattr(value, "name", None)
        if not (isinstance(name, str) and name.isidentifier() and name == name.lower()):
            raise ValueError(
                f"leak checkers from {origin}: the name of {type(value).__name__} is {show(name)}; "
                "allowed are lower-case letters, digits and underscores, and a letter or underscore first"
            )
    return list(values)


def _row(name: str, text: str) -> str:
    # A value of several lines is indented below its first one.
    return f"    {name + ':':<9}" + text.replace("\n", "\n" + " " * 13)


def changes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Every key whose value differs, as (key, old or MISSING, new or MISSING); the removed ones come last."""
    for key, new in after.items():
        old = before.get(key, MISSING)
        if old is MISSING or not same(old, new):
            yield key, old, new
    for key, old in before.items():
        if key not in after:
            yield key, old, MISSING


def same(one: Any, other: Any) -> bool:
    """Equal, for values that may be anything: what cannot be compared is equal only to itself."""
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:
        return False  # an array's ==, a half-made object's: whatever it raised, it did not say "equal"
