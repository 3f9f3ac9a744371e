# SPDX-License-Identifier: Apache-2.0
"""A cell: what one run of a suite gave in one environment, as one JSON document.

`schema/cell-2.json` beside this file describes it. Older schemas are read, newer ones refused, unknown keys ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pytest_compilepool.matrix import oldcells
from pytest_compilepool.matrix.clean import cleaned
from pytest_compilepool.matrix.statuses import LETTERS, UNTRIED
from pytest_compilepool.regular import read_text

SCHEMA = 2
"""Counts up when a key changes its meaning."""

_SHARDS = re.compile(r"[1-9][0-9]{0,5}/[1-9][0-9]{0,5}(\+[1-9][0-9]{0,5}/[1-9][0-9]{0,5})*")
_MOST_BYTES = 64 * 2**20


class BadCell(ValueError):
    """A file that is no cell, or one that cannot be used; the text names the file and what is wrong."""


@dataclass
class Result:
    """Of one feature.

    id: `group.name`; status: one of `statuses.LETTERS`; got: what came of it before expectations (PASS, FAIL, TIMEOUT,
    CRASH, ERROR, LEAK), empty where it was not tried; expected: statuses of its expectation, with `bug`, their link; reason:
    what was not kept or why it was not tried; requirement: the property that did not hold; duration: seconds; attempts:
    what came of each, where it was tried more than once; signature: of a failure, comparable between runs; leaks: command
    lines of processes that were left; counters: by name; notes: figures that the scenario told.
    """

    id: str
    status: str
    got: str = ""
    expected: list[str] = field(default_factory=list)
    bug: str = ""
    reason: str = ""
    requirement: str = ""
    duration: float = 0.0
    attempts: list[str] = field(default_factory=list)
    signature: str = ""
    leaks: list[str] = field(default_factory=list)
    counters: dict[str, int | float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def group(self) -> str:
        """What stands before the dot of its id."""
        return self.id.partition(".")[0]

    @property
    def plain(self) -> bool:
        """Whether it was kept, and there is nothing more to say of it."""
        return self.status == "PASS" and not (
            self.reason
            or self.notes
            or self.counters
            or self.attempts
            or self.leaks
            or self.expected
            or self.signature
            or self.bug
        )

    @property
    def tried(self) -> bool:
        """Whether it is evidence of anything."""
        return self.status not in UNTRIED


@dataclass
class Cell:
    """suite: version of the suite; run: of the environment, by name (see `runinfo`); mode: in which the suite was run;
    complete: whether the run came to its end; shard: `1/2` where it was one of several parts, else empty; results: by
    id; not_run: reasons by id; timings: seconds of a pool's life, by step; schema: of the file it was read from;
    source: that file."""

    suite: str
    run: dict[str, Any]
    mode: str
    complete: bool
    results: dict[str, Result]
    not_run: dict[str, str] = field(default_factory=dict)
    shard: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA
    source: str = ""

    @property
    def totals(self) -> dict[str, int]:
        """How many features of each status, those that were not run among them; only what there is."""
        found = [one.status for one in self.results.values()] + ["NOTRUN"] * len(self.not_run)
        return {status: found.count(status) for status in LETTERS if status in found}

    def to_text(self) -> str:
        """As it is written: readable, and in an order that depends on nothing but its contents."""
        told = {
            "schema": SCHEMA,
            "suite": self.suite,
            "mode": self.mode,
            "complete": self.complete,
            "shard": self.shard,
            "run_info": dict(sorted(self.run.items())),
            "totals": self.totals,
            "timings": dict(sorted(self.timings.items())),
            "results": [_short(one) for _, one in sorted(self.results.items())],
            "not_run": dict(sorted(self.not_run.items())),
        }
        return json.dumps(told, indent=1, ensure_ascii=True) + "\n"


def _short(result: Result) -> dict[str, Any]:
    """Without what says nothing."""
    return {name: value for name, value in asdict(result).items() if value or name in ("id", "status")}


def read_cell(file: Path) -> Cell:
    """Raises BadCell."""
    try:
        text = read_text(file, _MOST_BYTES)
    except OSError as error:
        raise BadCell(f"{file}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise BadCell(f"{file}: is no cell: not UTF-8 text") from None
    return from_text(text, str(file))


def from_text(text: str, source: str) -> Cell:
    """The inverse of `Cell.to_text`. source: the name of the file, for what is wrong with it. Raises BadCell."""
    try:
        told = oldcells.lines(text) or json.loads(
            text, object_pairs_hook=_each_once, parse_constant=_no_number
        )
    except _Twice as error:
        raise BadCell(f"{source}: is no cell: {error}") from None
    except (TypeError, AttributeError):
        raise BadCell(f"{source}: is no cell: its lines are not as schema 1 has them") from None
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        cut = "; it ends in the middle" if _cut_off(text, error) else ""
        raise BadCell(f"{source}: is no cell: no JSON{place}{cut}") from None
    if not isinstance(told, dict) or not isinstance(told.get("schema"), int):
        raise BadCell(f"{source}: is no cell: no object with the keys schema and results")
    if told["schema"] > SCHEMA or told["schema"] < 1:
        raise BadCell(
            f"{source}: schema {told['schema']} is not known; this release reads 1 to {SCHEMA}: a newer one may have more"
        )
    if "results" not in told:
        raise BadCell(f"{source}: is no cell: no object with the keys schema and results")
    return _Reader(source).cell(cleaned(told, text))


class _Twice(Exception):
    """A key of an object that is there more than once."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would take the last and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _cut_off(text: str, error: Exception) -> bool:
    if not isinstance(error, json.JSONDecodeError):
        return False
    rest = text[error.pos :].strip()
    return not rest or error.msg.startswith("Unterminated string")


_EMPTY = Result("", "")
_KINDS: dict[str, Any] = {
    one.name: (int, float) if one.name == "duration" else type(getattr(_EMPTY, one.name))
    for one in fields(Result)
}
_EXACTLY = {name: type(getattr(_EMPTY, name)) for name in _KINDS}


class _Reader:
    """Takes a document apart; what has the wrong type is named with its place."""

    def __init__(self, source: str) -> None:
        self._source = source

    def cell(self, told: Mapping[str, Any]) -> Cell:
        run = self._of(told, "run_info", dict, {})
        results: dict[str, Result] = {}
        for number, one in enumerate(self._of(told, "results", list, [])):
            found = self._result(one, f"results[{number}]")
            if found.id in results:
                raise self._wrong(f"results[{number}]", f"the feature {found.id!r} is there twice")
            results[found.id] = found
        not_run = self._of(told, "not_run", dict, {})
        for name, why in not_run.items():
            if not isinstance(why, str):
                raise self._wrong(f"not_run[{name!r}]", f"{why!r} is no text")
            if name in results:
                raise self._wrong(f"not_run[{name!r}]", "the feature has a result, too")
        timings = self._of(told, "timings", dict, {})
        for name, value in timings.items():
            if not _is_number(value):
                raise self._wrong(f"timings[{name!r}]", f"{str(value)[:80]!r} is no number")
        return Cell(
            suite=self._of(told, "suite", str, ""),
            run={str(name): value for name, value in run.items()},
            mode=self._of(told, "mode", str, ""),
            complete=self._of(told, "complete", bool, False),
            shard=self._shard(told),
            results=results,
            not_run=dict(not_run),
            timings={name: float(value) for name, value in timings.items()},
            schema=told["schema"],
            source=self._source,
        )

    def _shard(self, told: Mapping[str, Any]) -> str:
        text: str = self._of(told, "shard", str, "")
        if text and not _SHARDS.fullmatch(text):
            raise self._wrong("shard", f"{text[:80]!r} is not allowed; allowed: K/N, or several joined by +")
        return text

    def _result(self, told: Any, where: str) -> Result:
        if not isinstance(told, dict):
            raise self._wrong(where, f"{told!r} is no object")
        for name in ("id", "status"):
            if not isinstance(told.get(name), str):
                raise self._wrong(where, f"{name} is not there or no text")
        if told["status"] not in LETTERS:
            raise self._wrong(
                where, f"status {told['status']!r} is not allowed; allowed: {', '.join(LETTERS)}"
            )
        known = {
            # Almost all are of the very type, and there are very many.
            name: value if type(value) is _EXACTLY[name] else self._of(told, name, _KINDS[name], None, where)
            for name, value in told.items()
            if name in _EXACTLY
        }
        if not _is_number(known.get("duration", 0.0)):
            raise self._wrong(f"{where}.duration", f"{str(known['duration'])[:80]!r} is no number")
        self._contents(known, where)
        return Result(**known)

    def _contents(self, known: Mapping[str, Any], where: str) -> None:
        for name in ("expected", "attempts", "leaks", "notes"):
            for value in known.get(name, ()):
                if not isinstance(value, str):
                    raise self._wrong(f"{where}.{name}", f"{value!r} is no text")
        for name, value in known.get("counters", {}).items():
            if not _is_number(value):
                raise self._wrong(f"{where}.counters[{name!r}]", f"{str(value)[:80]!r} is no number")

    def _of(self, told: Mapping[str, Any], name: str, kind: Any, default: Any, where: str = "") -> Any:
        value = told.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            wanted = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(
                kind, "a number"
            )
            raise self._wrong(f"{where}.{name}".lstrip("."), f"{str(value)[:80]!r} is not {wanted}")
        return value

    def _wrong(self, where: str, what: str) -> BadCell:
        return BadCell(f"{self._source}: is no cell: {where}: {what}")


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
