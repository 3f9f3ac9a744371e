# SPDX-License-Identifier: Apache-2.0
"""What can be wrong: with what was asked, with a counter, with a source of counters, with a baseline file."""

from __future__ import annotations

import operator


class BadInput(ValueError):
    """A value that cannot be meant. Its text says what it is, where it came from, and what is allowed."""


class UnknownCounter(BadInput, KeyError):
    """A counter that there is not. Its text names the nearest that there are."""

    # A KeyError shows its text as a Python string, with all quotes escaped.
    __str__ = ValueError.__str__


class SourceFailed(Exception):
    """A source could not tell its counters. Its text names the source and what it did."""


class BadBaseline(Exception):
    """A baseline file that cannot be read, used or written. Its text names the file, and the line if there is one."""


class CountersDiffer(AssertionError):
    """Counters did not move as expected. Its text is the table of all that differ, and of all that moved."""


HIDDEN = operator.methodcaller("errisinstance", (BadInput, SourceFailed, BadBaseline, CountersDiffer))
"""What a module of this room sets `__tracebackhide__` to: of these errors pytest shows the line of the test."""
