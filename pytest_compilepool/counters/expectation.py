# SPDX-License-Identifier: Apache-2.0
"""A block in which counters are expected to move, checked at its end however it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import TracebackType

import pytest

from pytest_compilepool.counters.conditions import Condition, condition_of
from pytest_compilepool.counters.counts import Counts
from pytest_compilepool.counters.errors import HIDDEN, BadInput, CountersDiffer
from pytest_compilepool.counters.reader import Reader, Reading
from pytest_compilepool.counters.table import verdict_text
from pytest_compilepool.counters.verdict import Verdict, judge

__tracebackhide__ = HIDDEN

Keep = Callable[[BaseException, str], None]
"""Told of an error of a block and of the table that belongs to it."""


_OPEN = "was entered and never left"

# A test that ends itself, and somebody who ends the whole run.
_NO_FAILURES = (pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception, KeyboardInterrupt)


class Block:
    """A block between two readings: a context manager. keep: is given the table where the block raised."""

    origin = "compile_counters"

    def __init__(self, reader: Reader, keep: Keep) -> None:
        self._reader = reader
        self._keep = keep
        self._before = Reading()
        self._after: Reading | None = None
        self._state = "was never entered (is `with` missing?)"

    def moved(self) -> Counts:
        """What moved since the block began, up to its end if it has ended."""
        after = self._reader.read() if self._after is None else self._after
        return counts_between(self._reader, self._before, after, self.origin)

    @property
    def unjudged(self) -> str:
        """Why nobody has looked whether the block did as expected, a sentence, or an empty text."""
        return f"{self.origin}: a block {self._state}" if self._state else ""

    def __enter__(self) -> Block:
        if self._state == _OPEN:
            raise BadInput(f"{self.origin}: this block is under way; allowed: one `with` for each block")
        self._state = _OPEN
        self._after = None
        self._before = self._reader.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._after = self._reader.read()
        self._state = ""
        if isinstance(error, _NO_FAILURES):
            return
        table = self.finish(self._before, self._after, error)
        if not table:
            return
        if error is None:
            raise CountersDiffer(table)
        # The error of the block is what the test failed with; the table goes along with it.
        self._keep(error, table)

    def finish(self, before: Reading, after: Reading, error: BaseException | None) -> str:
        """At the end of the block: a table of what is wrong, or an empty text. error: what the block raised."""
        return ""


class Expectation(Block):
    """A block with an expectation: `with compile_counters.expect({...}):`."""

    origin = "compile_counters.expect"

    def __init__(self, reader: Reader, keep: Keep, expected: object, exact: object) -> None:
        super().__init__(reader, keep)
        self._exact = checked_switch(exact, f"{self.origin}: exact")
        self._expected = self._checked(expected)

    def _checked(self, expected: object) -> dict[str, Condition]:
        if not isinstance(expected, Mapping):
            raise BadInput(
                f"{self.origin}: {expected!r} is not allowed; allowed: a mapping from names of counters to what "
                "they are expected to move by"
            )
        if not expected and not self._exact:
            raise BadInput(
                f"{self.origin}: {{}} expects nothing; allowed: at least one counter, or exact=True"
            )
        reading = self._reader.read()
        for name in expected:
            self._reader.check(name, reading, self.origin)
        return {name: condition_of(value, f"{self.origin}: {name!r}") for name, value in expected.items()}

    def finish(self, before: Reading, after: Reading, error: BaseException | None) -> str:
        verdict = judge(
            self._reader, self._expected, before, after, exact=self._exact, ended_well=error is None
        )
        return told(verdict, "compile counters did not move as expected", before, after, error)


def told(verdict: Verdict, title: str, before: Reading, after: Reading, error: BaseException | None) -> str:
    """The table of a verdict, or an empty text where nothing is wrong. error: what the block raised.

    A source that failed is somebody's mistake, even where nobody asked for its counters: where there is no table
    to say it, a warning does.
    """
    failed = list({**before.failed, **after.failed}.values())
    if verdict.wrong:
        ended = "" if error is None else f" (the block ended with {type(error).__name__})"
        text = verdict_text(verdict, f"{title}{ended}:")
        return "\n".join([text, *(sentence for sentence in failed if sentence not in text)])
    if error is None:
        for sentence in failed:
            warnings.warn(pytest.PytestWarning(sentence), stacklevel=4)
    return ""


def counts_between(reader: Reader, before: Reading, after: Reading, origin: str) -> Counts:
    """What moved between two readings, as a mapping."""
    moves = reader.moves(before, after)
    doubts = {f"{move.name} {move.doubt}" for move in moves if move.doubt}
    return Counts(
        {move.name: move.by for move in moves},
        lambda name: reader.check(name, after, f"{origin}: moved()"),
        "; ".join(sorted(doubts)),
    )


def checked_switch(value: object, origin: str) -> bool:
    """A bool, or BadInput."""
    if not isinstance(value, bool):
        raise BadInput(f"{origin}: {value!r} is not allowed; allowed: True or False")
    return value
