# SPDX-License-Identifier: Apache-2.0
"""What a test asks for: by a fixture, or by a marker, each a function whose signature validates its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest

from pytest_compilepool.options import START_METHODS

if TYPE_CHECKING:
    from pytest_compilepool.records import Leak

ISOLATIONS = ("workers", "sidecar")

POOL_FIXTURES = frozenset(
    {
        "compile_pool",
        "cold_compile_pool",
        "quiesced_compile_pool",
        "compile_pool_factory",
    }
)
OTHER_FIXTURES = frozenset(
    {
        "single_threaded_compile",
        "fresh_compile_caches",
        "capture_guard",
        "compile_phases",
        "compile_parity",
        "compile_target",
    }
)


# Not dataclasses: every session loads this file, and making one takes longer than loading the rest of it.
class PoolMark:
    """What `@pytest.mark.compilepool(...)` said; None where it said nothing."""

    def __init__(
        self,
        processes: int | None,
        start_method: str | None,
        ready_timeout: float | None,
        isolation: str,
        target: str | None,
        offline: bool,
    ) -> None:
        self.processes = processes
        self.start_method = start_method
        self.ready_timeout = ready_timeout
        self.isolation = isolation
        self.target = target
        self.offline = offline


class Allowance:
    """One entry of `allow=[...]`: a checker, and a pattern (as in file names) for the leak's key."""

    def __init__(self, checker: str, pattern: str, reason: str) -> None:
        self.checker = checker
        self.pattern = pattern
        self.reason = reason

    def covers(self, leak: Leak) -> bool:
        """Whether this entry allows that leak."""
        # An exact key wins over its reading as a pattern: `pipe:[12]` holds what fnmatch takes for a set.
        same = leak.key == self.pattern or fnmatchcase(leak.key, self.pattern)
        return leak.checker == self.checker and same

    def __str__(self) -> str:
        return self.checker if self.pattern == "*" else f"{self.checker}:{self.pattern}"


def compilepool(
    *,
    processes: int | None = None,
    start_method: str | None = None,
    ready_timeout: float | None = None,
    isolation: str = "workers",
    target: str | None = None,
    offline: bool = False,
) -> PoolMark:
    """compilepool(*, processes, start_method, ready_timeout, isolation, target, offline): what a test wants of its pool.

    processes: how many workers. start_method: subprocess, fork or spawn. ready_timeout: seconds.
    isolation: "workers" (fresh workers, the sidecar is shared with other tests) or "sidecar" (its own).
    target: a GPU that need not be there, such as "cuda:90", for compile_target, compile_phases and compile_parity.
    offline: True lets compile_target stub the GPU also where there is a real one.
    Raises ValueError with one sentence for a value that is not allowed.
    """
    if processes is not None:
        from pytest_compilepool.pool.policy import parse_processes

        parse_processes(processes, "@pytest.mark.compilepool(processes=...)")
    if start_method is not None and start_method not in START_METHODS:
        raise ValueError(f"start_method={start_method!r} is not allowed; allowed: {', '.join(START_METHODS)}")
    if ready_timeout is not None:
        from pytest_compilepool.words import seconds

        seconds(ready_timeout, "ready_timeout")
    if isolation not in ISOLATIONS:
        raise ValueError(f"isolation={isolation!r} is not allowed; allowed: {', '.join(ISOLATIONS)}")
    if target is not None:
        from pytest_compilepool.targets import parse_target

        parse_target(target, "target")
    if not isinstance(offline, bool):
        raise ValueError(f"offline={offline!r} is not allowed; allowed: True, False")
    return PoolMark(processes, start_method, ready_timeout, isolation, target, offline)


def compilepool_leaks(*, allow: Sequence[str], reason: str) -> tuple[Allowance, ...]:
    """compilepool_leaks(*, allow, reason): leaks that a test may leave behind, and why.

    allow: names of checkers, or `checker:pattern` for some of what it finds, such as `threads:worker-*`.
    reason: a sentence; it is printed when an entry was not needed. Raises ValueError with one sentence.
    """
    if isinstance(allow, str) or not isinstance(allow, Sequence) or not allow:
        raise ValueError(f'allow={allow!r} is not allowed; allowed: a list such as ["threads"]')
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"reason={reason!r} is not allowed; allowed: a sentence that says why")
    entries = []
    for entry in allow:
        if not isinstance(entry, str):
            raise ValueError(f"allow={list(allow)!r}: {entry!r} is not allowed; allowed: a text")
        checker, colon, pattern = entry.partition(":")
        entries.append(Allowance(checker, pattern if colon else "*", reason))
    return tuple(entries)


def compilepool_exclusive(*, reason: str = "") -> str:
    """compilepool_exclusive(*, reason): this test runs while no other test does, as far as sessions with such tests go.

    For what measures CPU time or looks at the whole machine. reason: a sentence for the reader.
    Raises ValueError with one sentence.
    """
    if not isinstance(reason, str):
        raise ValueError(f"reason={reason!r} is not allowed; allowed: a sentence that says why")
    return reason


EXCLUSIVE = compilepool_exclusive.__name__

MARKERS: tuple[Callable[..., Any], ...] = (compilepool, compilepool_leaks, compilepool_exclusive)


def register(config: pytest.Config) -> None:
    """Tell pytest the markers, with the first line of their docstrings."""
    for function in MARKERS:
        text = inspect.getdoc(function) or function.__name__
        config.addinivalue_line("markers", text.splitlines()[0])


def pool_mark(item: pytest.Item) -> PoolMark:
    """The pool markers of a test as one; the closest one wins, argument by argument. Raises UsageError."""
    merged: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("compilepool"))):
        call(item, compilepool, mark)
        merged.update(mark.kwargs)
    return compilepool(**merged)


def allowances(item: pytest.Item, checkers: Collection[str]) -> list[Allowance]:
    """What the leak markers of a test allow. checkers: the names there are. Raises UsageError."""
    found: list[Allowance] = []
    for mark in item.iter_markers("compilepool_leaks"):
        found += call(item, compilepool_leaks, mark)
    for allowance in found:
        if allowance.checker not in checkers:
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.compilepool_leaks(allow=...): {allowance.checker!r} is no leak "
                f"checker; there are: {', '.join(sorted(checkers))}"
            )
    return found


def call(item: pytest.Item, function: Callable[..., Any], mark: pytest.Mark) -> Any:
    """Validate one marker by calling its function. Raises UsageError that names the test."""
    try:
        return function(*mark.args, **mark.kwargs)
    except (TypeError, ValueError) as error:
        text = str(error).replace(f"{function.__name__}()", "").strip()
        mark_name = f"@pytest.mark.{function.__name__}"
        if isinstance(error, TypeError):
            text += f"; allowed: {(inspect.getdoc(function) or '').partition(': ')[0]}"
        said = text if text.startswith(mark_name) else f"{mark_name}: {text}"
        raise pytest.UsageError(f"{item.nodeid}: {said}") from None


def will_be_skipped(item: pytest.Item) -> bool:
    """Whether its marks say so by themselves. Conditions that are texts only pytest can evaluate: then False."""
    if item.get_closest_marker("skip"):
        return True
    for mark in item.iter_markers("skipif"):
        for condition in (*mark.args, mark.kwargs.get("condition", "")):
            try:
                if not isinstance(condition, str) and condition:
                    return True
            except Exception:  # what is wrong with a condition is told by pytest, when it is the test's turn
                return False
    return False


def validate(item: pytest.Item, checkers: Collection[str]) -> None:
    """Every marker of one test, at collection. Raises UsageError for the first that is wrong."""
    if item.get_closest_marker("compilepool"):
        pool_mark(item)
    if item.get_closest_marker("compilepool_leaks"):
        allowances(item, checkers)
    for mark in item.iter_markers("compilepool_exclusive"):
        call(item, compilepool_exclusive, mark)


def uses_ours(item: pytest.Item) -> bool:
    """Whether a test uses any fixture of this plugin, or carries one of its markers."""
    names = set(getattr(item, "fixturenames", ()))
    marked = item.get_closest_marker("compilepool") or item.get_closest_marker("compilepool_leaks")
    return bool(names & (POOL_FIXTURES | OTHER_FIXTURES)) or marked is not None


def wants_pool(item: pytest.Item) -> bool:
    """Whether a test has asked for a pool."""
    names = set(getattr(item, "fixturenames", ()))
    return bool(names & POOL_FIXTURES) or item.get_closest_marker("compilepool") is not None
