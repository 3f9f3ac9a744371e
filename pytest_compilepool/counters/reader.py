# SPDX-License-Identifier: Apache-2.0
"""One reader over all sources of counters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_compilepool.counters.counts import difference
from pytest_compilepool.counters.errors import HIDDEN, BadInput, SourceFailed, UnknownCounter
from pytest_compilepool.counters.source import (
    CounterSource,
    doubt_about,
    known_names,
    read_source,
    short_name,
    stamp_of,
)

__tracebackhide__ = HIDDEN

_CLEARED = "cleared meanwhile"


@dataclass(frozen=True)
class Reading:
    """All counters at one moment. numbers: by dotted name, those that are 0 may be missing.

    stamps: by source, see `CounterSource.stamp`; failed: why a source could not tell, by its name.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    stamps: Mapping[str, object] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """How one counter moved. by: after less before; doubt: why that cannot be told, or an empty text."""

    name: str
    before: int
    after: int
    by: int
    doubt: str = ""


class Reader:
    """Reads all sources. sources: the first is torch's, which has every group that no other one has."""

    def __init__(self, sources: Sequence[CounterSource]) -> None:
        self._sources = list(sources)
        self._by_group = {source.name: source for source in sources[1:]}

    @property
    def names(self) -> list[str]:
        """The names of the sources."""
        return [source.name for source in self._sources]

    def read(self) -> Reading:
        """Every counter now. A source that fails is noted, the others are read."""
        numbers: dict[str, int] = {}
        stamps: dict[str, object] = {}
        failed: dict[str, str] = {}
        for source in self._sources:
            try:
                told = read_source(source)
                stamps[source.name] = stamp_of(source)
            except SourceFailed as error:
                failed[source.name] = str(error)
                continue
            numbers.update(told)
        return Reading(numbers, stamps, failed)

    def source_of(self, name: str) -> CounterSource:
        """Whose counter a dotted name is."""
        return self._by_group.get(name.partition(".")[0], self._sources[0])

    def check(self, name: object, reading: Reading, origin: str) -> None:
        """Whether there is such a counter. origin: who asks, in words.

        Raises UnknownCounter with the nearest names, BadInput for what is no name, SourceFailed where the source
        could not tell.
        """
        if not isinstance(name, str):
            raise BadInput(f"{origin}: {name!r} is not allowed as the name of a counter; allowed: a text")
        if name in reading.numbers:
            return
        source = self.source_of(name)
        if source.name in reading.failed:
            raise SourceFailed(f"{origin}: {name}: {reading.failed[source.name]}")
        if name in known_names(source) or source.knows(short_name(source, name)):
            return
        raise UnknownCounter(f"{origin}: there is no counter {name!r}{self._help(name, source, reading)}")

    def move(self, name: str, before: Reading, after: Reading) -> Move:
        """How one counter moved between two readings."""
        source = self.source_of(name)
        old, new = before.numbers.get(name, 0), after.numbers.get(name, 0)
        failed = before.failed.get(source.name) or after.failed.get(source.name)
        if failed is not None:
            return Move(name, old, new, 0, failed)
        doubt = doubt_about(source, name, before.stamps.get(source.name))
        return Move(name, old, new, difference(old, new), doubt or (_CLEARED if new < old else ""))

    def moves(self, before: Reading, after: Reading) -> list[Move]:
        """All that moved, by name. Of a source that failed nothing can be told."""
        moved = [
            name
            for name in sorted({*before.numbers, *after.numbers})
            if difference(before.numbers.get(name, 0), after.numbers.get(name, 0))
        ]
        return [move for name in moved if (move := self.move(name, before, after)).by]

    def doubts(self, before: Reading, after: Reading) -> dict[str, str]:
        """Why what moved between two readings is not all that did, a sentence each, by source."""
        found: dict[str, str] = {}
        for source in self._sources:
            failed = before.failed.get(source.name) or after.failed.get(source.name)
            doubt = failed or doubt_about(source, "", before.stamps.get(source.name))
            if doubt:
                found[source.name] = doubt
        return found

    def _help(self, name: str, source: CounterSource, reading: Reading) -> str:
        why = source.explain(short_name(source, name))
        near = self._nearest(name, reading)
        return (f" ({why})" if why else "") + (f"; the nearest are: {', '.join(near)}" if near else "")

    def _nearest(self, name: str, reading: Reading) -> list[str]:
        """At most three names that look like it, as a whole or after the dot."""
        names = set(reading.numbers)
        for source in self._sources:
            try:
                names |= known_names(source)
            except SourceFailed:
                pass  # it can add no name; this is about a name that is not its
        ends = {one.partition(".")[2]: one for one in sorted(names)}
        wanted = name.rpartition(".")[2]
        near = [ends[wanted]] if wanted in ends else []
        near += difflib.get_close_matches(name, names, n=3, cutoff=0.6)
        near += [ends[end] for end in difflib.get_close_matches(wanted, ends, n=3, cutoff=0.8)]
        return list(dict.fromkeys(near))[:3]
