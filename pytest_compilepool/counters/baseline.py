# SPDX-License-Identifier: Apache-2.0
"""A block whose counters are compared with a checked-in file, or written there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_compilepool.counters.baselinefile import read_file, write_entry
from pytest_compilepool.counters.conditions import exactly
from pytest_compilepool.counters.counts import is_measured
from pytest_compilepool.counters.errors import HIDDEN, BadBaseline, BadInput
from pytest_compilepool.counters.expectation import Block, Keep, told
from pytest_compilepool.counters.machine import Machine
from pytest_compilepool.counters.reader import Reader, Reading
from pytest_compilepool.counters.verdict import judge

__tracebackhide__ = HIDDEN

FOLDER = "compile_counters"
"""Beside the test file: `compile_counters/test_it.json` holds the baselines of `test_it.py`."""

_RACY = frozenset({"pool.workers_used"})
"""Which worker is first at a job is chance, and so is how many come to have one."""


@dataclass
class Books:
    """Where a test's baselines are, and whether they are compared or written.

    file: of the test; test: its node id; command: what writes them; written: by file and name, which test wrote
    what in this session.
    """

    file: Path
    test: str
    command: str
    write: bool
    machine: Machine
    written: dict[tuple[Path, str], tuple[str, dict[str, int]]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of the baselines."""
        return self.file.parent / FOLDER / f"{self.file.stem}.json"


def left_out(name: str) -> bool:
    """Whether a counter is no part of a baseline: measurements, and what depends on who was first."""
    return is_measured(name) or name in _RACY


class Baseline(Block):
    """`with compile_counters.baseline("cold"):`. Skips where there is no entry, unless it is to be written.

    name: one for each block of a test file; may hold the test's parameters. Raises BadInput and BadBaseline.
    """

    origin = "compile_counters.baseline"

    def __init__(self, reader: Reader, keep: Keep, books: Books, name: object) -> None:
        super().__init__(reader, keep)
        if not (isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable() and name.strip()):
            raise BadInput(
                f"{self.origin}: {name!r} is not allowed; allowed: a name of 1 to 200 printable characters"
            )
        self._books = books
        self._name = name
        self._key = ""
        self._entry: dict[str, int] | None = None

    def __enter__(self) -> Baseline:
        books = self._books
        self._key = books.machine.key()
        self._entry = read_file(books.path).get(self._name, {}).get(self._key)
        if self._entry is None and not books.write:
            self._state = ""
            pytest.skip(
                f"no baseline {self._name!r} for {self._key} in {books.path}; to write it: {books.command}"
            )
        super().__enter__()
        return self

    def finish(self, before: Reading, after: Reading, error: BaseException | None) -> str:
        """Compare with the file, or write to it where that was asked for and the block has not raised.

        Returns a table of what differs, or an empty text. error: what the block raised. Raises BadBaseline.
        """
        if self._books.write:
            if error is None:
                self._write(before, after)
            return ""
        expected = {name: exactly(number) for name, number in (self._entry or {}).items()}
        verdict = judge(
            self._reader,
            expected,
            before,
            after,
            exact=True,
            passed_over=left_out,
            ended_well=error is None,
        )
        place = f"{self._books.path}, baseline {self._name!r} for {self._key}"
        return told(verdict, f"compile counters differ from {place}", before, after, error)

    def _write(self, before: Reading, after: Reading) -> None:
        books = self._books
        moves = [move for move in self._reader.moves(before, after) if not left_out(move.name)]
        doubts = [f"{move.name} {move.doubt}" for move in moves if move.doubt]
        general = self._reader.doubts(before, after)
        doubts += [
            f"{source}.*: {why}" for source, why in general.items() if not any(why in d for d in doubts)
        ]
        if doubts:
            raise BadBaseline(f"{books.path}: {self._name!r} was not written: {'; '.join(doubts)}")
        counters = {move.name: move.by for move in moves}
        test, earlier = books.written.setdefault((books.path, self._name), (books.test, counters))
        if test != books.test and earlier != counters:
            raise BadBaseline(
                f"{books.path}: {self._name!r} was not written: {test} has just written other counters under that "
                "name; a name is for one block of a file (it may hold the test's parameters)"
            )
        write_entry(books.path, self._name, self._key, counters)
