# SPDX-License-Identifier: Apache-2.0
"""`compilepool mutants`: the test of the conformance suite itself: does it notice pools that are wrong?"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from pytest_compilepool.conformance.manifest import Feature, read_manifest
from pytest_compilepool.conformance.mutant import Mutant
from pytest_compilepool.conformance.mutation import (
    BadMutants,
    Result,
    read_mutants,
    scenarios,
    try_all,
    without_mutant,
)
from pytest_compilepool.conformance.subjects import BadRequirements
from pytest_compilepool.suite import MANIFEST, PACKAGE, bundled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.add_argument(
        "folder",
        nargs="?",
        default="tests/mutants",
        metavar="FOLDER",
        help="package of mutants (tests/mutants)",
    )
    parser.add_argument("--group", metavar="G", help="mutants of these modules only, separated by commas")
    parser.add_argument(
        "--pool", metavar="TEXT", help="mutants of pools whose requirements hold this text only"
    )
    parser.add_argument("-n", metavar="N", type=int, default=2, help="so many at the same time (2)")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0 where all were noticed, 1 where one survived or a feature has none, 4 for bad arguments, 5 for none."""
    features = read_manifest(bundled() / MANIFEST)
    try:
        mutants = read_mutants(Path(arguments.folder), features)
    except BadMutants as error:
        print(
            f"compilepool mutants: {error} (mutants are in the source tree, not in the wheel)",
            file=sys.stderr,
        )
        return 4
    groups = set(arguments.group.split(",")) if arguments.group else None
    chosen = [
        one
        for one in mutants
        if (groups is None or one.id.partition(".")[0] in groups)
        and (arguments.pool or "") in one.requirements
    ]
    if not chosen:
        print("compilepool mutants: no mutant is left to be tried", file=sys.stderr)
        return 5
    if arguments.list:
        for one in chosen:
            print(f"{one.id:<44} {one.what}  -> {', '.join(one.kills)}")
        return 0
    # Ended as by Ctrl-C: what was started is ended with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        results = try_all(chosen, features, scenarios(bundled(), PACKAGE), max(1, arguments.n), _tell)
    except BadRequirements as error:
        print(f"compilepool mutants: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("compilepool mutants: interrupted", file=sys.stderr)
        return 130
    bare = without_mutant(features, mutants)
    _summary(results, features, bare, time.monotonic() - began)
    tried = [result for result in results if result.tried]
    if not tried:
        return 5
    return 0 if all(result.good for result in tried) and not bare else 1


def _tell(result: Result) -> None:
    word = "killed" if result.good else "BROKEN" if result.broken else "SURVIVED"
    if not result.tried:
        word = "untested"
    how = ", ".join(f"{name} {verdict.status}" for name, verdict in result.killed.items())
    lines = [f"{word:<9} {result.mutant.id}: {result.mutant.what}  {how}"]
    lines += [f"          not noticed by {name}" for name in result.survived]
    lines += [f"          not tried: {name}: {why}" for name, why in result.untested.items()]
    if result.broken:
        lines.append(f"          the pool does not work at all: {result.broken.splitlines()[0]}")
    print("\n".join(lines), flush=True)


def _summary(results: list[Result], features: dict[str, Feature], bare: list[str], seconds: float) -> None:
    by_feature: dict[str, list[Mutant]] = {}
    for result in results:
        for name in result.killed:
            by_feature.setdefault(name, []).append(result.mutant)
    print("\nfeature                                      killed  mutants")
    for name in features:
        if name in by_feature:
            ids = ", ".join(one.id for one in by_feature[name])
            print(f"{name:<44} {len(by_feature[name]):>6}  {ids}")
    for name in bare:
        print(f"{name:<44}      0  no mutant: nobody has shown that it can fail")
    good = sum(result.good for result in results)
    untested = sum(not result.tried for result in results)
    aside = f", {untested} cannot be tried here" if untested else ""
    print(
        f"\n{good} of {len(results)} mutants killed{aside}, {len(bare)} features without a mutant, {seconds:.0f} s"
    )
