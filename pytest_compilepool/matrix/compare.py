# SPDX-License-Identifier: Apache-2.0
"""Two cells beside each other: what regressed, what was fixed, what cannot be compared, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_compilepool.matrix import counters
from pytest_compilepool.matrix.cell import Cell, Result
from pytest_compilepool.matrix.environments import differing_axes, title
from pytest_compilepool.matrix.signature import signature

KINDS = {
    "regressed": "regressed",
    "regressed, known": "regressed, and known",
    "another": "not kept in both, with another signature",
    "flaky": "flaky",
    "fixed": "fixed",
    "new": "new",
    "gone": "gone",
    "not comparable": "not comparable",
    # Last: it is long, and nothing has happened.
    "same": "not kept in both, with the same signature",
}
"""In the order in which they are told."""

_NOT_KEPT = ("CRASH", "TIMEOUT", "ERROR", "FAIL", "LEAK", "XFAIL")
_KEPT = ("PASS", "XPASS")
_ABSENT = ("UNSUPPORTED",)


@dataclass(frozen=True)
class Change:
    """Of one feature. kind: one of KINDS; text: from what to what, and why."""

    feature: str
    kind: str
    text: str


def compare(base: Cell, head: Cell) -> list[Change]:
    """A change for each feature that is not kept in both, by kind and feature."""
    every = sorted({*base.results, *base.not_run, *head.results, *head.not_run})
    found = [change for feature in every if (change := _change(feature, base, head)) is not None]
    kinds = list(KINDS)
    return sorted(found, key=lambda one: (kinds.index(one.kind), one.feature))


def _change(feature: str, base: Cell, head: Cell) -> Change | None:
    before, after = (_of(cell, feature) for cell in (base, head))
    if before is None or after is None:
        kind = "new" if before is None else "gone"
        return Change(
            feature, kind, f"{_told(after if before is None else before)}, not in the other's suite"
        )
    was, now = before.status, after.status
    text = f"{_told(before)} -> {_told(after)}"
    if "FLAKY" in (was, now):
        return Change(feature, "flaky", text)
    if was in _ABSENT and now in _ABSENT:
        return None
    if was in _ABSENT and (now in _KEPT or now in _NOT_KEPT):
        return Change(feature, "new", text)
    if now in _ABSENT and (was in _KEPT or was in _NOT_KEPT):
        return Change(feature, "gone", text)
    if "SKIP" in (was, now) or "NOTRUN" in (was, now):
        # What neither could try is no difference.
        return None if was == now else Change(feature, "not comparable", text)
    return _judged(feature, before, after, text)


def _judged(feature: str, before: Result, after: Result, text: str) -> Change | None:
    was_kept, is_kept = before.status in _KEPT, after.status in _KEPT
    if was_kept and is_kept:
        return None
    if was_kept:
        known = after.status == "XFAIL"
        link = f" ({after.bug})" if known and after.bug else ""
        return Change(feature, "regressed, known" if known else "regressed", text + link)
    if is_kept:
        return Change(feature, "fixed", text)
    if _signature(before) == _signature(after) and before.got == after.got:
        # That somebody has come to know of it is told, though nothing else is another.
        return Change(feature, "same", text if before.status != after.status else _told(after))
    return Change(feature, "another", text)


def _signature(result: Result) -> str:
    """Made anew, since the two cells' suites may have made theirs in another way; an old cell may have no reason."""
    return signature(result.reason) if result.reason else result.signature


def _of(cell: Cell, feature: str) -> Result | None:
    if feature in cell.results:
        return cell.results[feature]
    if feature in cell.not_run:
        return Result(feature, "NOTRUN", reason=cell.not_run[feature])
    return None


def _told(result: Result | None) -> str:
    if result is None:
        return "-"
    got = f" ({result.got})" if result.status == "XFAIL" else ""
    why = _signature(result) if result.status in _NOT_KEPT else ""
    why = why or result.requirement or (result.reason if result.status == "NOTRUN" else "")
    return f"{result.status}{got}{f': {why[:160]}' if why else ''}"


def lines(base: Cell, head: Cell) -> Iterator[str]:
    """First what is another in torch's own defaults, then how far the two can be compared, then the changes by kind."""
    yield f"base: {title(base)} ({base.source})"
    yield f"head: {title(head)} ({head.source})"
    yield from _defaults(base, head)
    axes = differing_axes(base, head)
    if len(axes) > 1:
        yield f"warning: more than one thing differs, so that no change has one cause: {', '.join(axes)}"
        for axis, differing in axes.items():
            yield f"  {axis}: {'; '.join(differing)}"
    for cell in (base, head):
        if not cell.complete or cell.shard:
            yield f"warning: {cell.source} is no whole run"
    changes = compare(base, head)
    for kind, title_of_kind in KINDS.items():
        those = [change for change in changes if change.kind == kind]
        if those:
            yield f"{title_of_kind} ({len(those)}):"
            yield from (f"  {change.feature}: {change.text}" for change in those)
    yield from _counters(base, head)
    if not changes:
        yield "no feature changed"


def _defaults(base: Cell, head: Cell) -> Iterator[str]:
    before, after = (cell.run.get("defaults") for cell in (base, head))
    if not isinstance(before, dict) or not isinstance(after, dict):
        yield "defaults of torch: not known of both"
        return
    flipped = [
        f"{name}: {before.get(name, 'not there')} -> {after.get(name, 'not there')}"
        for name in sorted({*before, *after})
        if before.get(name, "not there") != after.get(name, "not there")
    ]
    yield f"defaults of torch that differ ({len(flipped)}){':' if flipped else ''}"
    yield from (f"  {line}" for line in flipped)


def _counters(base: Cell, head: Cell) -> Iterator[str]:
    told = [
        f"  {feature}: {line}"
        for feature in sorted(base.results.keys() & head.results.keys())
        for line in counters.moved(base.results[feature].counters, head.results[feature].counters)
    ]
    if told:
        yield f"counters that moved ({len(told)}):"
        yield from told


def regressed(base: Cell, head: Cell) -> bool:
    """Whether a feature that was kept is not, and nobody knows of it."""
    return any(change.kind == "regressed" for change in compare(base, head))
