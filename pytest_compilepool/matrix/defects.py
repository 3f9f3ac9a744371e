# SPDX-License-Identifier: Apache-2.0
"""What each release of torch cannot, and where each defect appears and is gone: read off a matrix, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.environments import is_torchs, order
from pytest_compilepool.matrix.markdown import escaped, link
from pytest_compilepool.matrix.table import Matrix

KEPT = ("PASS", "XPASS")
CANNOT = "UNSUPPORTED"
NO_EVIDENCE = ("SKIP", "NOTRUN", "ERROR")
"""What a machine could not try, or a test could not find out, says nothing of a torch."""


@dataclass
class Release:
    """What cells of one torch say of one feature: by place (lane, GPU), their results; never empty."""

    name: str
    found: dict[tuple[str, str], list[Result]] = field(default_factory=dict)

    @property
    def results(self) -> list[Result]:
        """Of all places."""
        return [one for those in self.found.values() for one in those]

    @property
    def broken(self) -> list[Result]:
        """Those in which it is not kept."""
        return [one for one in self.results if one.status not in (*KEPT, CANNOT)]

    @property
    def cannot(self) -> bool:
        """Whether that torch has nothing to try it on, wherever it was asked."""
        return all(one.status == CANNOT for one in self.results)

    def keeps_what(self, other: Release) -> bool:
        """Whether it was tried, and kept, in a place in which it is broken in that one."""
        places = [place for place, those in other.found.items() if any(one in other.broken for one in those)]
        return any(one.status in KEPT for place in places for one in self.found.get(place, ()))


def releases(matrix: Matrix, feature: str) -> list[Release]:
    """Of torch's own pool, in their order; only those of which something is known."""
    found: dict[str, Release] = {}
    for column in matrix.columns:
        for cell, one in zip(column.cells, column.squares[feature].found, strict=True):
            if one.status not in NO_EVIDENCE and is_torchs(cell):
                place = column.lane, str(cell.run.get("gpu") or "")
                release = found.setdefault(column.name, Release(column.name))
                release.found.setdefault(place, []).append(one)
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
        for need in {result.requirement for one in told for result in one.results if result.status == CANNOT}:
            lacks, has = found.setdefault(need, (set(), set()))
            lacks |= {one.name for one in told if one.cannot}
            has |= {one.name for one in told if not one.cannot}
    return found


def _names(names: set[str]) -> str:
    return ", ".join(escaped(name) for name in sorted(names, key=order)) or "-"


def _row(feature: str, told: list[Release]) -> str:
    appears, gone, bugs = [], [], []
    before: Release | None = None
    last: Release | None = None  # in which it is broken, and from which on nobody has seen it kept
    for one in told:
        if one.broken:
            if last is None:
                appears.append(_appears(before, one.name))
            if len(one.broken) < len(one.results):
                # One release says both: an environment decides, or chance.
                appears[-1] += f" (in {one.name} not everywhere)"
            bugs += [result.bug for result in one.broken]
            last = one
        elif last is not None and one.keeps_what(last):
            gone.append(f"after {last.name}, by {one.name}")
            last = None
        before = one
    if last is not None:
        gone.append(f"still in {last.name}")
    links = (
        ", ".join(f"[{_short(bug)}]({link(bug)})" for bug in dict.fromkeys(bugs) if link(bug)) or "not known"
    )
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
