# SPDX-License-Identifier: Apache-2.0
"""Cells side by side: features in groups down, torch's releases across, in a lane for each vLLM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pytest_compilepool.matrix import environments
from pytest_compilepool.matrix.cell import Cell, Result
from pytest_compilepool.matrix.statuses import UNTRIED, worst

_MISSING = Result("", "NOTRUN", reason="not in this cell")


@dataclass
class Square:
    """What the cells of one column say of one feature. found: a result for each cell of the column, in its order."""

    found: list[Result]
    disagree: bool = False

    @cached_property
    def status(self) -> str:
        """The one that decides: FLAKY where cells of one environment disagree."""
        return worst([one.status for one in self.found] + (["FLAKY"] if self.disagree else []))

    @property
    def many(self) -> int:
        """In how many cells it is that one."""
        # That they disagree all of them say together.
        return sum(one.status == self.status for one in self.found) or len(self.found)

    @property
    def told(self) -> int:
        """In how many cells the feature was tried."""
        return sum(one.tried for one in self.found)

    @property
    def mixed(self) -> bool:
        """Whether those of which something is known say different things."""
        return len({one.status for one in self.found if one.tried or one.status == "UNSUPPORTED"}) > 1


@dataclass
class Column:
    """Cells of one release. lane, name: see `environments`; squares: by feature; torn: features about which cells of one
    environment disagree."""

    lane: str
    name: str
    cells: list[Cell]
    squares: dict[str, Square] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)

    @property
    def incomplete(self) -> list[Cell]:
        """Cells of runs that did not come to their end, or of which a part is missing."""
        return [cell for cell in self.cells if not cell.complete or cell.shard]


class Matrix:
    """All of it. cells: at least one."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells = list(cells)
        places: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            places.setdefault((environments.lane(cell), environments.column(cell)), []).append(cell)
        self.columns = [
            Column(lane, name, sorted(places[lane, name], key=environments.by_age))
            for lane, name in sorted(places, key=lambda one: tuple(map(environments.order, one)))
        ]
        self.features = sorted(
            {name for cell in self.cells for name in (*cell.results, *cell.not_run)},
            key=lambda name: (name.partition(".")[0] == "vllm", name),
        )
        for column in self.columns:
            self._fill(column)

    def _fill(self, column: Column) -> None:
        alike: dict[str, list[int]] = {}
        for number, cell in enumerate(column.cells):
            alike.setdefault(environments.identity(cell), []).append(number)
        several = [numbers for numbers in alike.values() if len(numbers) > 1]
        for feature in self.features:
            found = [_of(cell, feature) for cell in column.cells]
            torn = any(_disagree([found[number] for number in numbers]) for numbers in several)
            column.squares[feature] = Square(found, torn)
            if torn:
                column.torn.append(feature)

    @property
    def lanes(self) -> dict[str, list[Column]]:
        """Columns by lane, both in order."""
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.lane, []).append(column)
        return found

    @property
    def groups(self) -> dict[str, list[str]]:
        """Features by group, both in order."""
        found: dict[str, list[str]] = {}
        for feature in self.features:
            found.setdefault(feature.partition(".")[0], []).append(feature)
        return found

    def differs(self, feature: str) -> bool:
        """Whether its status is another in some column, of those in which it was tried or that cannot have it."""
        told = {column.squares[feature].status for column in self.columns} - {"SKIP", "NOTRUN"}
        return len(told) > 1 or any(column.squares[feature].mixed for column in self.columns)


def _of(cell: Cell, feature: str) -> Result:
    found = cell.results.get(feature)
    if found is not None:
        return found
    why = cell.not_run.get(feature)
    return _MISSING if why is None else Result(feature, "NOTRUN", reason=why)


def _disagree(found: Sequence[Result]) -> bool:
    return len({one.status for one in found if one.tried}) > 1


def evidence(cell: Cell) -> tuple[int, int]:
    """For how many features it is evidence, of how many; what this torch cannot do is known, too."""
    every = len(cell.results) + len(cell.not_run)
    told = sum(one.status not in UNTRIED or one.status == "UNSUPPORTED" for one in cell.results.values())
    return told, every
