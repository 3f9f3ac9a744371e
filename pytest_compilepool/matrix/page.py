# SPDX-License-Identifier: Apache-2.0
"""The matrix as one static page: no network, no server, and nothing that stands in a cell is run.

The table is there without scripts. A script shows what stands behind a square, from data in the page: statuses of all cells
as letters, and for each cell that was not plainly kept a row of numbers that point into one list of texts.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from typing import Any

from pytest_compilepool.matrix import plain
from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.environments import title
from pytest_compilepool.matrix.statuses import LETTERS, MEANINGS
from pytest_compilepool.matrix.table import Column, Matrix, Square

_REASON = 2000
_FEW_NOTES = 12


class NoTemplates(RuntimeError):
    """jinja2 is not installed."""


def page(matrix: Matrix, musts: dict[str, str], left_out: Iterable[str] = ()) -> str:
    """HTML. musts: the sentence of each feature that is known; left_out: a sentence for each file that could not be used.

    Raises NoTemplates.
    """
    try:
        # By its name: it is an extra, and whoever has none is to be able to check these types.
        jinja2: Any = importlib.import_module("jinja2")
    except ImportError:
        raise NoTemplates("jinja2 is not installed (pip install jinja2)") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_compilepool.matrix"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    notes = list(plain.notes(matrix))
    made: str = environment.get_template("matrix.html.j2").render(
        matrix=matrix,
        lanes=matrix.lanes,
        groups=[
            (group, [_kept(matrix, column, features) for column in matrix.columns], features)
            for group, features in matrix.groups.items()
        ],
        musts=musts,
        square=lambda feature, column: _shown(column.squares[feature], column),
        different={feature for feature in matrix.features if matrix.differs(feature)},
        notes=notes,
        few=len(notes) <= _FEW_NOTES,
        left_out=list(left_out),
        letters=LETTERS,
        meanings=MEANINGS,
        data=_script(_data(matrix)),
    )
    return made


def _shown(square: Square, column: Column) -> tuple[str, str, str]:
    """Status, letter, and how many of how many, empty where all say so."""
    many = "" if square.many == len(column.cells) else f"{square.many}/{len(column.cells)}"
    return square.status, LETTERS[square.status], many


def _kept(matrix: Matrix, column: Column, features: list[str]) -> str:
    """Of a group: how many are kept, of those that were tried."""
    found = [column.squares[feature].status for feature in features]
    tried = sum(status not in ("SKIP", "NOTRUN", "UNSUPPORTED") for status in found)
    return f"{sum(status in ('PASS', 'XPASS') for status in found)}/{tried}" if tried else "-"


def _data(matrix: Matrix) -> dict[str, Any]:
    texts = _Texts()
    columns = [
        {
            "name": f"{column.name} ({column.lane})",
            "cells": [texts.of(_environment(cell.run, title(cell), cell.source)) for cell in column.cells],
            "rows": [_row(column.squares[feature], texts) for feature in matrix.features],
        }
        for column in matrix.columns
    ]
    return {
        "letters": {letter: status for status, letter in LETTERS.items()},
        "features": matrix.features,
        "columns": columns,
        "texts": texts.all,
    }


def _environment(run: dict[str, Any], name: str, source: str) -> str:
    parts = [name, *(f"{key} {run[key]}" for key in ("os", "cpus", "started", "ci") if run.get(key)), source]
    return "; ".join(part for part in parts if part)


def _row(square: Square, texts: _Texts) -> list[Any]:
    """The letters of all cells; then, for each of which there is something to say, its number and what."""
    told: list[Any] = ["".join(LETTERS[one.status] for one in square.found)]
    for number, one in enumerate(square.found):
        if one.plain:
            continue
        said = _said(one, texts.reason(one))
        if said:
            told.append([number, *(texts.of(part) for part in said)])
    return told


def _said(one: Result, reason: str) -> list[str]:
    """reason, signature, bug, counters and the rest; empty where it was plainly kept."""
    rest = [f"attempts: {', '.join(one.attempts)}"] if one.attempts else []
    rest += [f"left: {', '.join(one.leaks)}"] if one.leaks else []
    rest += [f"expected: {', '.join(one.expected)}"] if one.expected else []
    rest += one.notes
    counters = ", ".join(f"{name} {value:g}" for name, value in sorted(one.counters.items()))
    said = [reason, one.signature, one.bug, counters, "; ".join(rest)]
    while said and not said[-1]:
        said.pop()
    return said


class _Texts:
    """Each text once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._known: dict[str, int] = {}
        self._reasons: dict[tuple[str, str, str], str] = {}

    def reason(self, one: Result) -> str:
        """Of a failure the first that has its signature: what differs between them is of no interest, and large."""
        if not one.signature:
            return one.reason[:_REASON]
        return self._reasons.setdefault((one.id, one.status, one.signature), one.reason[:_REASON])

    def of(self, text: str) -> int:
        """Its number."""
        if text not in self._known:
            self._known[text] = len(self.all)
            self.all.append(text)
        return self._known[text]


def _script(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element, whatever is in it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
