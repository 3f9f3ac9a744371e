# SPDX-License-Identifier: Apache-2.0
"""Known defects of released pools: `expectations.toml`. Each names its versions, its statuses and its bug."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from pytest_compilepool.conformance.manifest import Feature
from pytest_compilepool.conformance.tomlfile import BadFile, Table, tables
from pytest_compilepool.conformance.verdict import STATUSES

OLDEST = Version("2.8")
"""The oldest torch that is supported: what is expected of older ones only is stale."""


@dataclass(frozen=True)
class Expectation:
    """What is known of a feature on some releases. torch: on which, None for all; status: what it gives there; bug: a
    link."""

    feature: str
    torch: SpecifierSet | None
    status: tuple[str, ...]
    bug: str
    note: str
    where: str

    def covers(self, feature: str, torch: str | None) -> bool:
        """Whether it is about this feature on this torch. Base versions are compared: a nightly counts as its release."""
        if feature != self.feature:
            return False
        return self.torch is None or (torch is not None and _base(torch) in self.torch)

    @property
    def stale(self) -> bool:
        """Whether no supported release can be meant."""
        if self.torch is None:
            return False
        return not any(one in self.torch for one in _candidates(self.torch) if one >= OLDEST)


def _base(version: str) -> str:
    try:
        return Version(version).base_version
    except InvalidVersion:
        return version


def read_expectations(file: Path, features: Mapping[str, Feature]) -> list[Expectation]:
    """All entries. features: of the manifest. Raises BadFile: no bug, an unknown feature, a bad range, an overlap."""
    found: list[Expectation] = []
    for table in tables(file, "expect"):
        found.append(_expectation(table, features, found))
    return found


def _expectation(table: Table, features: Mapping[str, Feature], before: list[Expectation]) -> Expectation:
    table.keys_are(("feature", "status", "bug"), ("torch", "note"))
    feature, text, bug = table.text("feature"), table.text("torch"), table.text("bug")
    if feature not in features:
        raise table.wrong(f"feature = {feature!r} is not in the manifest{_nearest(feature, features)}")
    try:
        versions = SpecifierSet(text) if text else None
        if versions is not None and not _only_releases(versions):
            raise InvalidSpecifier(text)
    except InvalidSpecifier:
        raise table.wrong(
            f"torch = {text!r} is not allowed; allowed: a range of releases such as '>=2.8,<2.14'"
        ) from None
    status = table.texts("status")
    if not status or any(word not in STATUSES for word in status) or status == ("PASS",):
        raise table.wrong(
            f"status = {list(status)!r} is not allowed; allowed: a list of {', '.join(STATUSES)}"
        )
    if not bug.startswith("https://"):
        raise table.wrong(f"bug = {bug!r} is not allowed; allowed: a link that begins with https://")
    for other in before:
        if other.feature == feature and _overlap(other.torch, versions):
            mine, its = (
                "no torch, so every one," if one is None else repr(str(one))
                for one in (versions, other.torch)
            )
            raise table.wrong(f"torch = {mine} overlaps {its} of {other.where} for {feature}")
    return Expectation(feature, versions, status, bug, table.text("note"), table.where)


def _nearest(word: str, words: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(word, words, 3)
    return f"; nearest: {', '.join(near)}" if near else ""


def _overlap(a: SpecifierSet | None, b: SpecifierSet | None) -> bool:
    """Whether a release could be in both."""
    if a is None or b is None:
        return True
    return any(one in a and one in b for one in _candidates(a, b))


def _candidates(*ranges: SpecifierSet) -> list[Version]:
    """Releases that stand for all: the bounds of these ranges, what lies just beside them, and one far beyond."""
    bounds = [Version(part.version.removesuffix(".*")) for one in ranges for part in one]
    return [
        Version(f"{bound.major}.{minor}.{micro}")
        for bound in (*bounds, OLDEST, Version("999"))
        for minor in {max(0, bound.minor - 1), bound.minor, bound.minor + 1}
        for micro in {0, 1, max(0, bound.micro - 1), bound.micro, bound.micro + 1, 999}
    ]


def _only_releases(versions: SpecifierSet) -> bool:
    """Base versions are compared: what tells builds of one release from each other would match nothing."""
    for part in versions:
        text = part.version.removesuffix(".*")
        if part.operator == "===" or Version(text).base_version != text:
            return False
    return True


def stale_entries(entries: list[Expectation]) -> list[str]:
    """A line for each that can be met by no supported torch."""
    return [
        f"{entry.where}: torch = {str(entry.torch)!r} holds no release from {OLDEST} on"
        for entry in entries
        if entry.stale
    ]


def match(entries: list[Expectation], feature: str, torch: str | None) -> Expectation | None:
    """The entry for this feature on this torch, or None."""
    return next((entry for entry in entries if entry.covers(feature, torch)), None)


__all__ = ["BadFile", "Expectation", "match", "read_expectations", "stale_entries"]
