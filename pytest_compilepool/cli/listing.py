# SPDX-License-Identifier: Apache-2.0
"""`compilepool run --list`: the promises, and what is known of each before anything is tried."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_compilepool.conformance.expectations import Expectation, match, read_expectations
from pytest_compilepool.conformance.manifest import MODES, Feature, read_manifest
from pytest_compilepool.conformance.subjects import Subject
from pytest_compilepool.suite import EXPECTATIONS, MANIFEST, bundled


def write(arguments: argparse.Namespace, subject: Subject | None, why: str) -> int:
    """Print the features of the mode and the groups that were asked for, and what the pool here is known to do with them.

    subject: the pool, None where it cannot be asked; why: then, why. Returns 0, 4 for bad arguments, 5 where there is
    no feature.
    """
    features = read_manifest(bundled() / MANIFEST)
    mode = arguments.mode or "standard"
    groups = {feature.group for feature in features.values()}
    chosen = set(arguments.group.split(",")) if arguments.group else groups
    if mode not in MODES:
        return _refuse("--mode", mode, MODES)
    if not chosen <= groups:
        return _refuse("--group", arguments.group, sorted(groups))
    within = MODES[: MODES.index(mode) + 1]
    listed = [one for one in features.values() if one.mode in within and one.group in chosen]
    known = _expectations(arguments, features)
    for feature in listed:
        print(_line(feature, subject, known))
    rest = len(features) - len(listed)
    more = f", {rest} more in other modes and groups (--mode stress holds all)" if rest else ""
    print(f"{len(listed)} features{more}; {_of(subject) or why}")
    return 0 if listed else 5


def _refuse(option: str, value: str, allowed: tuple[str, ...] | list[str]) -> int:
    print(
        f"compilepool run: {option}: {value!r} is not allowed; allowed: {', '.join(allowed)}", file=sys.stderr
    )
    return 4


def _of(subject: Subject | None) -> str:
    if subject is None:
        return ""
    return f"{subject.name}: {', '.join(f'{name} {text}' for name, text in subject.versions.items())}"


def _expectations(arguments: argparse.Namespace, features: dict[str, Feature]) -> list[Expectation]:
    """Of the file that was named; of torch's pool, where nothing else was said."""
    if arguments.expectations is not None:
        return read_expectations(Path(arguments.expectations), features)
    return [] if arguments.requirements else read_expectations(bundled() / EXPECTATIONS, features)


def _line(feature: Feature, subject: Subject | None, known: list[Expectation]) -> str:
    told = f"  (needs {', '.join(feature.needs)})" if feature.needs else ""
    if subject is not None:
        lacking = subject.lacks(feature.needs)
        defect = match(known, feature.id, subject.versions.get("torch"))
        if lacking:
            told = f"  (not tested here: {lacking})"
        elif defect is not None:
            told = f"  ({' or '.join(defect.status)}, known: {defect.bug})"
    return f"{feature.id:<42} {feature.mode:<9} {feature.must}{told}"
