# SPDX-License-Identifier: Apache-2.0
"""What each release of torch cannot, and where each defect appears and is gone: read off a matrix, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.environments import order
from pytest_compilepool.matrix.markdown import escaped, link
from pytest_compilepool.matrix.table import Matrix

KEPT = ("PASS", "XPASS")
CANNOT = "UNSUPPORTED"


@dataclass
class Release:
    """What all cells of one torch, of every lane, say of one feature; what none has tried is not in here."""

    name: str
    found: list[Result] = field(default_factory=list)

    @property
    def broken(self) -> list[Result]:
        """Those in which it is not kept."""
        return [one for one in self.found if one.status not in (*KEPT, CANNOT)]

    @property
    def cannot(self) -> bool:
        """Whether that torch has nothing to try it on."""
        return any(one.status == CANNOT for one in self.found)


def releases(matrix: Matrix, feature: str) -> list[Release]:
    """In their order; only those of which something is known."""
    found: dict[str, Release] = {}
    for column in matrix.columns:
        told = [
            one for one in column.squares[feature].found if one.tried or one.status == CANNOT
        ]  # what a machine could not try says nothing
        if told:
            found.setdefault(column.name, Release(column.name)).found.extend(told)
    return sorted(found.values(), key=lambda one: order(one.name))


def defects(matrix: Matrix) -> Iterator[str]:
    """Lines: a table of what releases cannot, and one of all that is not kept somewhere."""
    every = {feature: releases(matrix, feature) for feature in matrix.features}
    yield "| what a torch may lack | lacks it | has it |"
    yield "| --- | --- | --- |"
    for need, (lacks, has) in sorted(_needs(every).items()):
        yield f"| {escaped(need)} | {_names(lacks)} | {_names(has)} |"
    yield ""
    yield "| not kept | appears | is gone | bug |"
    yield "| --- | --- | --- | --- |"
    for feature, told in every.items():
        if any(one.broken for one in told):
            yield _row(feature, told)


def _needs(every: dict[str, list[Release]]) -> dict[str, tuple[set[str], set[str]]]:
    """By property: the releases that lack it, and those in which a feature that wants it was tried."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for told in every.values():
        for need in {result.requirement for one in told for result in one.found if result.status == CANNOT}:
            lacks, has = found.setdefault(need, (set(), set()))
            lacks |= {one.name for one in told if one.cannot}
            has |= {one.name for one in told if not one.cannot}
    return found


def _names(names: set[str]) -> str:
    return ", ".join(escaped(name) for name in sorted(names, key=order)) or "-"


def _row(feature: str, told: list[Release]) -> str:
    appears, gone, bugs = [], [], []
    before: Release | None = None
    for one in told:
        if one.broken and not (before and before.broken):
            appears.append(_appears(before, one.name))
        if before and before.broken and not one.broken:
            gone.append(f"after {before.name}, by {one.name}")
        bugs += [result.bug for result in one.broken if result.bug not in bugs]
        if one.broken and len(one.broken) < len(one.found):
            # One release says both: an environment decides, or chance.
            appears[-1] += f" (in {one.name} not everywhere)"
        before = one
    if told[-1].broken:
        gone.append(f"still in {told[-1].name}")
    links = ", ".join(f"[{_short(bug)}]({link(bug)})" for bug in bugs if link(bug)) or "not known"
    cells = (escaped(feature), escaped("; ".join(appears)), escaped("; ".join(gone)), links)
    return f"| {' | '.join(cells)} |"


def _appears(before: Release | None, name: str) -> str:
    if before is None:
        return f"in {name} or before"
    return f"with what {before.name} cannot" if before.cannot else f"after {before.name}, by {name}"


def _short(bug: str) -> str:
    """`pytorch#189290` of an issue's address, a file's name of a file's."""
    parts = bug.rstrip("/").split("/")
    if len(parts) > 3 and parts[-2] in ("pull", "issues"):
        return f"{parts[-3]}#{parts[-1]}"
    return escaped(parts[-1])
