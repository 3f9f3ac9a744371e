# SPDX-License-Identifier: Apache-2.0
"""Parts of one run, made on one machine or on many, put together: the cell that the whole run gives, but for times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pytest_compilepool.matrix.cell import BadCell, Cell, Result
from pytest_compilepool.matrix.environments import differing_axes, differing_fields, identity

SHARD = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")
ELSEWHERE = "in another shard"
"""Why a feature has no result in a part."""


def merge(cells: Sequence[Cell]) -> Cell:
    """One cell of these. Raises BadCell where they are of different environments, or one feature has two statuses."""
    first = cells[0]
    for other in cells[1:]:
        if identity(other) != identity(first):
            counts = differing_fields(first, other)
            told = [line for found in differing_axes(first, other).values() for line in found]
            lines = [line for line in told if line.partition(":")[0] in (*counts, "suite", "mode")]
            lines = lines or [f"{name} is another" for name in counts]
            raise BadCell(f"{other.source}: of another environment than {first.source}: {'; '.join(lines)}")
    results: dict[str, Result] = {}
    came_from: dict[str, str] = {}
    for cell in cells:
        for name, result in cell.results.items():
            known = results.setdefault(name, result)
            came_from.setdefault(name, cell.source)
            if (known.status, known.got) != (result.status, result.got):
                raise BadCell(
                    f"{cell.source}: {name} is {_told(result)}, but {_told(known)} in {came_from[name]}; "
                    "these are two runs, not parts of one"
                )
            if known is not result:
                raise BadCell(
                    f"{cell.source}: {name} has a result in {came_from[name]}, too; parts have none in common"
                )
    not_run = _not_run(cells, results)
    shard = _shard(cells)
    nowhere = [name for name, why in not_run.items() if why == ELSEWHERE]
    if nowhere and not shard:
        raise BadCell(
            f"{len(nowhere)} features are in none of these parts, for example {nowhere[0]}: "
            "they are parts of runs of different features (--mode, --group)"
        )
    return replace(
        first,
        run=_run(cells),
        results=results,
        not_run=not_run,
        shard=shard,
        complete=all(cell.complete for cell in cells),
        timings=_timings(cells),
        source=" + ".join(cell.source for cell in cells),
    )


def _told(result: Result) -> str:
    return result.status if result.got in ("", result.status) else f"{result.status} ({result.got})"


def _not_run(cells: Iterable[Cell], results: dict[str, Result]) -> dict[str, str]:
    """What no part has tried; another reason than that it was another part's comes first."""
    found: dict[str, str] = {}
    for cell in cells:
        for name, why in cell.not_run.items():
            if name not in results and found.get(name, ELSEWHERE) == ELSEWHERE:
                found[name] = why
    return found


def _shard(cells: Sequence[Cell]) -> str:
    """Those that are there, empty where all are."""
    parts = {part for cell in cells for part in cell.shard.split("+") if part}
    if not parts:
        return ""
    of = {part.rpartition("/")[2] for part in parts}
    if len(of) > 1:
        raise BadCell(f"parts of different divisions: {', '.join(sorted(parts))}")
    many = int(of.pop())
    missing = [part for part in (f"{number}/{many}" for number in range(1, many + 1)) if part not in parts]
    whole = not missing or any(not cell.shard for cell in cells)
    return "" if whole else "+".join(sorted(parts))


def _run(cells: Sequence[Cell]) -> dict[str, Any]:
    """Of the first; where machines differ, what there was, each once; the earliest start."""
    found: dict[str, Any] = dict(cells[0].run)
    for name in {name for cell in cells for name in cell.run}:
        values = [cell.run[name] for cell in cells if name in cell.run]
        if name == "started":
            found[name] = min(map(str, values))
        elif isinstance(values[0], str):
            found[name] = " | ".join(dict.fromkeys(map(str, values)))
    return found


def _timings(cells: Sequence[Cell]) -> dict[str, float]:
    """Of the first that has them."""
    return next((cell.timings for cell in cells if cell.timings), {})
