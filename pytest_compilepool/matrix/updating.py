# SPDX-License-Identifier: Apache-2.0
"""Expectations brought up to date with cells: what is new is added with its bug; nothing else is touched.

An entry that cells do not speak of stays, whatever they say of other releases: a part of a run, or one that crashed,
removes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pytest_compilepool.conformance.expectations import Expectation, match
from pytest_compilepool.conformance.verdict import STATUSES
from pytest_compilepool.matrix.cell import Cell, Result
from pytest_compilepool.matrix.environments import TORCHS, base, is_nightly
from pytest_compilepool.matrix.statuses import BROKEN


@dataclass
class Update:
    """added: blocks to append to the file; obsolete: entries whose only release keeps the feature now; told: lines about
    what was not changed, and why."""

    added: list[str] = field(default_factory=list)
    obsolete: list[Expectation] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def update(cells: Iterable[Cell], entries: Sequence[Expectation], bug: str) -> Update:
    """bug: a link for all that is added; an empty text where nothing may be. Of several cells of one release all statuses
    are taken together. Raises ValueError for cells of different pools."""
    found = Update()
    seen: dict[tuple[str, str], list[Result]] = {}
    cells = list(cells)
    if len(pools := {str(cell.run.get("pool") or TORCHS) for cell in cells}) > 1:
        raise ValueError(f"cells of different pools: {', '.join(sorted(pools))}; one file is about one pool")
    for cell in cells:
        version = str(cell.run.get("torch") or "")
        if not version or is_nightly(version):
            found.told.append(f"{cell.source}: not of a release of torch, so nothing was taken from it")
            continue
        for result in cell.results.values():
            if result.tried:
                seen.setdefault((result.id, base(version)), []).append(result)
    for (feature, version), results in sorted(seen.items()):
        _one(found, feature, version, results, match(list(entries), feature, version), bug)
    return found


def _one(
    found: Update, feature: str, version: str, results: list[Result], known: Expectation | None, bug: str
) -> None:
    got = sorted({one for result in results for one in (result.attempts or [result.got])} - {""})
    if any(result.status in (*BROKEN, "FLAKY") for result in results):
        if known is not None and {*got} <= {*known.status}:
            return  # the cell was made before it was known
        if known is not None:
            found.told.append(
                f"{feature}, torch {version}: {', '.join(got)}, but {known.where} expects {', '.join(known.status)}: "
                "narrow or widen it by hand"
            )
        elif unknown := [one for one in got if one in ("ERROR", "LEAK") or one not in STATUSES]:
            found.told.append(
                f"{feature}, torch {version}: {', '.join(unknown)} is no property of a pool: not added"
            )
        elif not {*got} - {"PASS"}:
            found.told.append(f"{feature}, torch {version}: its cell does not say what came of it: not added")
        elif not bug:
            found.told.append(f"{feature}, torch {version}: {', '.join(got)}: not added without --bug")
        else:
            found.added.append(_block(feature, version, got, bug))
    elif all(result.status == "XPASS" for result in results) and known is not None:
        if str(known.torch) == f"=={version}":
            found.obsolete.append(known)
        else:
            found.told.append(
                f"{feature}, torch {version}: kept, but {known.where} expects {', '.join(known.status)} for "
                f"torch {known.torch or 'of any version'}: narrow it by hand"
            )


def _block(feature: str, version: str, got: list[str], bug: str) -> str:
    # Worst first, PASS last: it says that the others do not come every time.
    statuses = sorted(got, key=lambda one: (one == "PASS", one))
    return (
        f"[[expect]]\nfeature = {_toml(feature)}\ntorch = {_toml(f'=={version}')}\n"
        f"status = {json.dumps(statuses)}\nbug = {_toml(bug)}\n"
    )


def _toml(text: str) -> str:
    """As JSON has it, but for the escapes in pairs that TOML does not have."""
    return json.dumps(text, ensure_ascii=False)


def without(text: str, lines: Iterable[int]) -> str:
    """The file without the `[[expect]]` tables that begin in these lines, counted from 1; comments stay, for nobody can
    say which table one is about."""
    begins = set(lines)
    kept: list[str] = []
    inside = False
    for number, line in enumerate(re.split(r"(?<=\n)", text), 1):
        if line.lstrip().startswith("[["):
            inside = number in begins
        if not inside or line.lstrip().startswith("#"):
            kept.append(line)
    return "".join(kept)
