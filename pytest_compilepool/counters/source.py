# SPDX-License-Identifier: Apache-2.0
"""What a source of counters is, and asking one that may be somebody else's."""

from __future__ import annotations

import abc
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar, TypeVar

from pytest_compilepool.counters.errors import BadInput, SourceFailed

T = TypeVar("T")


class CounterSource(abc.ABC):
    """Something that counts. Subclass it and offer it with the hook `pytest_compilepool_counters`.

    Only `name` and `read` are needed. name: the group of its counters, lower case: those of source `mine` are
    `mine.things_made` and so on. A counter is a whole number that grows.
    """

    name: ClassVar[str]
    dotted: ClassVar[bool] = False
    """Whether its names have their group in them already. Only torch's source, which has many groups."""

    @abc.abstractmethod
    def read(self) -> Mapping[str, int]:
        """Every counter as it is now: name (without the group) -> number."""

    def known(self) -> Collection[str]:
        """Names that can appear, where `read()` leaves out what has not moved yet."""
        return ()

    def knows(self, name: str) -> bool:
        """Whether there can be a counter of this name, beside those in `known()`: where a rule makes names."""
        return False

    def explain(self, name: str) -> str:
        """Why there is no counter of this name, in words, or an empty text."""
        return ""

    def stamp(self) -> object:
        """Whatever `doubt` needs to compare with; taken with every reading."""
        return None

    def doubt(self, name: str, since: object) -> str:
        """Why a difference of this counter cannot be told, or an empty text. since: what `stamp()` gave before."""
        return ""


def checked_sources(values: object, taken: Collection[str], origin: str) -> list[CounterSource]:
    """What somebody offered as sources, if it is that. taken: names that there are; origin: in words.

    Raises BadInput.
    """
    if not isinstance(values, (list, tuple)):
        raise BadInput(
            f"{origin}: {_show(values)} is not allowed; allowed: a list of CounterSource instances"
        )
    seen = set(taken)
    for value in values:
        if not isinstance(value, CounterSource):
            raise BadInput(
                f"{origin}: {_show(value)} in the list is not allowed; allowed: instances of subclasses of "
                "CounterSource"
            )
        name: object = getattr(value, "name", None)
        if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
            raise BadInput(
                f"{origin}: the name {_show(name)} of {type(value).__name__} is not allowed; allowed: lower-case "
                "letters, digits and underscores, a letter first"
            )
        if name in seen:
            raise BadInput(
                f"{origin}: the name {name!r} of {type(value).__name__}: that name is taken; taken are "
                f"{', '.join(sorted(seen))}"
            )
        seen.add(name)
    return list(values)


def read_source(source: CounterSource) -> dict[str, int]:
    """All counters of a source by dotted name. Raises SourceFailed, also for what is no number of something."""
    values: object = _ask(source, "read", source.read)
    if not isinstance(values, Mapping):
        raise _wrong(source, values, "a mapping from names to whole numbers")
    told: dict[str, int] = {}
    for name, number in values.items():
        if not isinstance(name, str) or not name:
            raise _wrong(source, name, "a text as name of a counter")
        told[full_name(source, name)] = _whole(source, name, number)
    return told


def known_names(source: CounterSource) -> set[str]:
    """`source.known()` as dotted names. Raises SourceFailed."""
    return _ask(source, "known", lambda: {full_name(source, str(name)) for name in source.known()})


def stamp_of(source: CounterSource) -> object:
    """`source.stamp()`. Raises SourceFailed."""
    return _ask(source, "stamp", source.stamp)


def doubt_about(source: CounterSource, name: str, since: object) -> str:
    """`source.doubt()` about a dotted name; that it failed is a doubt, too."""
    try:
        return _ask(source, "doubt", lambda: source.doubt(short_name(source, name), since))
    except SourceFailed as error:
        return str(error)


def full_name(source: CounterSource, name: str) -> str:
    """The dotted name of a counter of this source."""
    return name if source.dotted else f"{source.name}.{name}"


def short_name(source: CounterSource, name: str) -> str:
    """The name by which the source itself knows a counter."""
    return name if source.dotted else name.partition(".")[2]


def _whole(source: CounterSource, name: str, number: object) -> int:
    # A subclass of int says more than its number: see `Distinct`.
    if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
        return number
    try:
        if not isinstance(number, bool) and operator.index(number) >= 0:  # type: ignore[arg-type]
            return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise _wrong(source, number, f"a whole number from 0 for {name!r}")


def _ask(source: CounterSource, method: str, function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        raise SourceFailed(
            f"counter source {source.name!r} cannot tell: {method}() raised {_words(error)}"
        ) from error


def _wrong(source: CounterSource, value: object, allowed: str) -> SourceFailed:
    return SourceFailed(
        f"counter source {source.name!r} cannot tell: read() returned {_show(value)}; allowed is {allowed}"
    )


def _words(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _show(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__} without a repr"
    return text if len(text) <= 100 else f"{text[:96]} ..."
