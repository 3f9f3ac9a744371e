# SPDX-License-Identifier: Apache-2.0
"""What stands beside the tests of a suite: its manifest, and what is known of the pool that is tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool.conformance.expectations import Expectation, read_expectations
from pytest_compilepool.conformance.manifest import Feature, read_manifest
from pytest_compilepool.conformance.subjects import DEFAULT, Subject
from pytest_compilepool.conformance.tomlfile import BadFile

MANIFEST, EXPECTATIONS = "features.toml", "expectations.toml"


@dataclass(frozen=True)
class Definition:
    """features: by id, in the order of the file; expectations: of the pool that is tried."""

    features: dict[str, Feature]
    expectations: list[Expectation]


def read_definition(folder: Path, spec: str, named: str | None) -> Definition:
    """Of the suite in that folder. spec: of the pool; named: the file of expectations that was asked for. Raises BadFile."""
    features = read_manifest(folder / MANIFEST)
    file: Path | None = folder / EXPECTATIONS
    if named is not None:
        file = Path(named)
    elif spec != DEFAULT or not (folder / EXPECTATIONS).exists():
        # What is known of torch's pool says nothing about another.
        file = None
    return Definition(features, [] if file is None else read_expectations(file, features))


def check_groups(asked: Iterable[str], groups: Iterable[str], origin: str) -> None:
    """Raises ValueError for a group that no feature is of. origin: where it was asked for."""
    allowed = sorted(set(groups))
    for group in asked:
        if group not in allowed:
            raise ValueError(f"{origin}: {group!r} is not allowed; allowed: {', '.join(allowed)}")


def check_versions(expectations: Iterable[Expectation], subject: Subject) -> None:
    """Raises BadFile where ranges of torch were given for a pool that says nothing of a torch."""
    ranges = [one for one in expectations if one.torch is not None]
    if ranges and "torch" not in subject.versions:
        raise BadFile(
            f"{ranges[0].where}: torch = {str(ranges[0].torch)!r} matches nothing: the `versions` of "
            f"{subject.spec} name no torch; without the key an entry is for all versions"
        )
