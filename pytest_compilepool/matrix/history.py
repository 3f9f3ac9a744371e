# SPDX-License-Identifier: Apache-2.0
"""One feature through many builds: between which two it changed, which is where a nightly run's culprit lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_compilepool.matrix.cell import Cell, Result
from pytest_compilepool.matrix.environments import by_age, lane, title

_COMMITS = "https://github.com/pytorch/pytorch/compare/"


def history(cells: Iterable[Cell], feature: str) -> Iterator[str]:
    """Lines: of each lane the builds in their order, and after a change the range of commits in which it came."""
    # Of machines with another GPU, or none, the same build may say another thing: that is no change.
    lines: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        place = lane(cell), str(cell.run.get("gpu") or "no GPU"), str(cell.run.get("arch") or "")
        lines.setdefault(place, []).append(cell)
    many = len({arch for _, _, arch in lines}) > 1
    for (name, gpu, arch), members in sorted(lines.items()):
        yield f"{feature}, {name}, {gpu}{f', {arch}' if many else ''}:"
        before: tuple[Cell, Result] | None = None
        for cell in sorted(members, key=by_age):
            found = cell.results.get(feature)
            if found is None or not found.tried:
                why = found.reason if found is not None else cell.not_run.get(feature, "not in this cell")
                status = found.status if found is not None else "NOTRUN"
                yield f"  {status:<11} {title(cell)}: {why}".rstrip(": ")
                continue
            if before is not None and _kept(before[1]) != _kept(found):
                yield f"  changed between these two: {_range(before[0], cell)}"
            yield f"  {found.status:<11} {title(cell)}{f': {found.signature}' if found.signature else ''}"
            before = cell, found


def _kept(result: Result) -> bool:
    return result.status in ("PASS", "XPASS")


def _range(before: Cell, after: Cell) -> str:
    first, last = (str(cell.run.get("torch_git") or "") for cell in (before, after))
    if not first or not last:
        return "their commits are not in the cells"
    if first == last:
        return f"the same commit of torch ({first[:12]}), so not torch's"
    return f"{_COMMITS}{first}...{last}"
