# SPDX-License-Identifier: Apache-2.0
"""What must be on this machine, or nothing is tried: a run that skipped it would be evidence for something else."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from pytest_compilepool.conformance.subjects import Subject

_NEED = re.compile(r"(?P<name>[A-Za-z_]\w*)\s*(?P<versions>[=!<>~].*)?")


def check_required(asked: Iterable[str], subject: Subject, origin: str) -> None:
    """Of each: a property (`gpu`), something with a version (`torch`), or its versions (`torch==2.13.*`).

    origin: of what was asked, for the message. Raises ValueError for what nobody knows, and for what is not here.
    """
    for need in asked:
        match = _NEED.fullmatch(need.strip())
        name, versions = (match["name"], match["versions"]) if match else (need, None)
        if name not in subject.holds and name not in subject.versions:
            known = ", ".join(sorted({*subject.holds, *subject.versions}))
            raise ValueError(
                f"{origin}: {need!r} is not allowed; allowed: {known}, and versions as in torch==2.13.*"
            )
        if not subject.holds.get(name, True):
            raise ValueError(
                f"{origin}: {need} is required, and is not here: {subject.reasons[name].partition(': ')[2]}"
            )
        if versions:
            _check_versions(need, versions, subject.versions.get(name), origin)


def _check_versions(need: str, versions: str, here: str | None, origin: str) -> None:
    try:
        allowed = SpecifierSet(versions)
    except InvalidSpecifier:
        raise ValueError(f"{origin}: {need!r} names no versions; an example: torch==2.13.*") from None
    if here is None:
        raise ValueError(f"{origin}: {need!r} names versions of what has none")
    try:
        fits = allowed.contains(Version(here), prereleases=True)
    except InvalidVersion:
        fits = False
    if not fits:
        raise ValueError(f"{origin}: {need} is required, and here is {here}")
