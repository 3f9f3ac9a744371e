# SPDX-License-Identifier: Apache-2.0
"""Since and until when: of each feature the ranges of releases that say the same, in the manner of caniuse."""

from __future__ import annotations

from typing import Any

from pytest_compilepool.matrix.table import Column, Matrix

SCHEMA = 1


def support(matrix: Matrix) -> dict[str, Any]:
    """By feature and lane, a list of ranges in the order of the releases.

    Each has `since` and `until` (releases of torch, both included; `until` null where the last column is in it), `status`,
    and where there are any `partial` (not all cells say so), `requirement`, `bug`.
    """
    return {
        "schema": SCHEMA,
        "lanes": {lane: [one.name for one in columns] for lane, columns in matrix.lanes.items()},
        "features": {
            feature: {lane: _ranges(columns, feature) for lane, columns in matrix.lanes.items()}
            for feature in matrix.features
        },
    }


def _ranges(columns: list[Column], feature: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for column in columns:
        told = _told(column, feature)
        if found and {**found[-1], "since": "", "until": ""} == {**told, "since": "", "until": ""}:
            found[-1]["until"] = column.name
        else:
            found.append({"since": column.name, "until": column.name, **told})
    if found:
        found[-1]["until"] = None
    return found


def _told(column: Column, feature: str) -> dict[str, Any]:
    square = column.squares[feature]
    told: dict[str, Any] = {"status": square.status}
    if square.mixed or square.disagree:
        told["partial"] = True
    one = next((result for result in square.found if result.status == square.status), square.found[0])
    if one.requirement:
        told["requirement"] = one.requirement
    if one.bug and square.status != "PASS":
        told["bug"] = one.bug
    return told
