# SPDX-License-Identifier: Apache-2.0
"""`compilepool run --list`: the promises, and what is known of each before anything is tried."""

from __future__ import annotations

from pytest_compilepool.cli.asked import Asked
from pytest_compilepool.conformance.expectations import match
from pytest_compilepool.conformance.manifest import Feature
from pytest_compilepool.conformance.subjects import Subject


def write(asked: Asked) -> int:
    """Print the features that were asked for, and what the pool here is known to do with them. Returns 0, or 5 for none."""
    for feature in asked.features:
        print(_line(feature, asked))
    rest = len(asked.definition.features) - len(asked.features)
    more = f", {rest} more in other modes and groups (--mode stress holds all)" if rest else ""
    print(f"{len(asked.features)} features{more}; {_of(asked.subject) or asked.why}")
    return 0 if asked.features else 5


def _of(subject: Subject | None) -> str:
    if subject is None:
        return ""
    return f"{subject.name}: {', '.join(f'{name} {text}' for name, text in subject.versions.items())}"


def _line(feature: Feature, asked: Asked) -> str:
    told = f"  (needs {', '.join(feature.needs)})" if feature.needs else ""
    if asked.subject is not None:
        lacking = asked.subject.lacks(feature.needs)
        defect = match(asked.definition.expectations, feature.id, asked.subject.versions.get("torch"))
        if lacking:
            told = f"  (not tested here: {lacking})"
        elif defect is not None:
            told = f"  ({' or '.join(defect.status)}, known: {defect.bug})"
    return f"{feature.id:<42} {feature.mode:<9} {feature.must}{told}"
