# SPDX-License-Identifier: Apache-2.0
"""The definition of conformance: `features.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool.conformance.tomlfile import Table, tables

MODES = ("smoke", "standard", "stress")
"""Each holds those before it."""

LIMIT = 60.0
"""Seconds that the interpreter of a feature may take, unless the feature says otherwise."""

SHARING = "quiesce"
"""The property that a pool must have which features share: between two of them it gets new workers."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Feature:
    """One promise of a pool.

    id: `group.name`; must: the promise, one sentence; needs: properties of the requirements that must hold for it to
    be tried; since: release of this package that first had it; mode: smallest mode in which it runs; limit: seconds;
    seen: threads in which its breach was reported; where: `FILE:LINE`; share: it uses one default pool, leaves that as it
    was, and so may be tried in one interpreter with others, after each other.
    """

    id: str
    title: str
    must: str
    needs: tuple[str, ...]
    since: str
    mode: str
    limit: float
    seen: tuple[str, ...]
    where: str
    share: bool = False

    @property
    def group(self) -> str:
        """What stands before the dot."""
        return self.id.partition(".")[0]


def read_manifest(file: Path) -> dict[str, Feature]:
    """Features by id, in the order of the file. Raises BadFile."""
    features: dict[str, Feature] = {}
    for table in tables(file, "feature"):
        found = _feature(table)
        if found.id in features:
            raise table.wrong(f"id = {found.id!r} is there twice; first at {features[found.id].where}")
        features[found.id] = found
    return features


def needs_of(features: Iterable[Feature]) -> set[str]:
    """All properties that they need, and that which sharing needs where one may share."""
    return {need for feature in features for need in (*feature.needs, *((SHARING,) if feature.share else ()))}


def _feature(table: Table) -> Feature:
    table.keys_are(("id", "title", "must", "since", "mode"), ("needs", "limit", "seen", "share"))
    identifier, must, mode = table.text("id"), table.text("must"), table.text("mode")
    if not _IDENTIFIER.fullmatch(identifier):
        raise table.wrong(f"id = {identifier!r} is not allowed; allowed: group.name in small letters")
    if " MUST " not in must or not must.endswith(".") or ". " in must:
        raise table.wrong(f"must = {must!r} is not allowed; allowed: one sentence with the word MUST")
    if mode not in MODES:
        raise table.wrong(f"mode = {mode!r} is not allowed; allowed: {', '.join(MODES)}")
    return Feature(
        identifier,
        table.text("title"),
        must,
        table.texts("needs"),
        table.text("since"),
        mode,
        table.number("limit", LIMIT),
        table.texts("seen"),
        table.where,
        table.flag("share"),
    )
