# SPDX-License-Identifier: Apache-2.0
"""Asking a checker that may be somebody else's: whatever it raises or returns becomes one kind of error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pytest_compilepool.leaks.base import LeakChecker, show
from pytest_compilepool.records import Leak, Snapshot

T = TypeVar("T")

_METHODS = frozenset({"measure", "diff", "silent", "judged", "describe", "restore", "note", "format"})


class CheckerError(Exception):
    """A checker failed. Its text is a sentence that names the checker, the method and what it did."""


def measure(checker: LeakChecker) -> Snapshot | None:
    """`checker.measure()`. Raises CheckerError, also where that is no mapping and not None."""
    value: object = _call(checker, "measure", "cannot tell", checker.measure)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _wrong(checker, "measure", value, "a mapping or None")
    return value if isinstance(value, dict) else _call(checker, "measure", "cannot tell", lambda: dict(value))


def diff(checker: LeakChecker, before: Snapshot, after: Snapshot) -> list[Leak]:
    """`checker.diff(before, after)`. Raises CheckerError, also where that is no list of its own leaks."""
    return _leaks(checker, "diff", _call(checker, "diff", "cannot tell", lambda: checker.diff(before, after)))


def silent(checker: LeakChecker, before: Snapshot, after: Snapshot) -> list[Leak]:
    """`checker.silent(before, after)`. Raises CheckerError as `diff` does."""
    return _leaks(
        checker, "silent", _call(checker, "silent", "cannot tell", lambda: checker.silent(before, after))
    )


def restore(checker: LeakChecker, leaks: Sequence[Leak]) -> None:
    """`checker.restore(leaks)`. Raises CheckerError."""
    keys = ", ".join(leak.key for leak in leaks)
    _call(checker, "restore", f"could not put right {keys}", lambda: checker.restore(leaks))


def text(checker: LeakChecker, leak: Leak) -> str:
    """`checker.format(leak)`. Raises CheckerError, also where that is no text."""
    value: object = _call(checker, "format", "has no words of its own for this", lambda: checker.format(leak))
    if not isinstance(value, str):
        raise _wrong(checker, "format", value, "a text")
    return value


def _call(checker: LeakChecker, method: str, outcome: str, function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        method = _method(checker, error) or method
        raise CheckerError(
            f"leak checker {checker.name!r} {outcome}: {method}() raised {_words(error)}"
        ) from error


def _method(checker: LeakChecker, error: Exception) -> str:
    """The innermost method of the checker that the error came through, or an empty text."""
    found, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name in _METHODS and frame.f_locals.get("self") is checker:
            found = frame.f_code.co_name
        trace = trace.tb_next
    return found


def _words(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _leaks(checker: LeakChecker, method: str, value: object) -> list[Leak]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(checker, method, value, "a list of Leak")
    for leak in value:
        if not isinstance(leak, Leak) or leak.checker != checker.name or not isinstance(leak.key, str):
            raise _wrong(
                checker, method, leak, f"a list of Leak of checker {checker.name!r}, with a text as key"
            )
    return list(value)


def _wrong(checker: LeakChecker, method: str, value: object, allowed: str) -> CheckerError:
    return CheckerError(
        f"leak checker {checker.name!r} cannot tell: {method}() returned {show(value)}; allowed is {allowed}"
    )
