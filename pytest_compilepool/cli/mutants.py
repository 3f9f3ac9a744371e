# SPDX-License-Identifier: Apache-2.0
"""`compilepool mutants`: the test of the conformance suite itself: does it notice pools that are wrong?"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.cli.refusal import Refused, words
from pytest_compilepool.conformance.definition import MANIFEST, check_groups
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
from pytest_compilepool.fresh.interrupt import as_by_ctrl_c
from pytest_compilepool.suite import PACKAGE, bundled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.usage = f"{parser.prog} [OPTION ...] [FOLDER]"
    parser.epilog = "Example, in a clone of the repository: compilepool mutants --group warm -n 4"
    parser.add_argument(
        "folder",
        nargs="?",
        default="tests/mutants",
        metavar="FOLDER",
        help="package of mutants (tests/mutants)",
    )
    parser.add_argument("--group", metavar="G", help="mutants of these modules only, separated by commas")
    parser.add_argument(
        "--pool", metavar="TEXT", help="mutants of pools with this text in their requirements only"
    )
    parser.add_argument("-n", metavar="N", default="2", help="so many at the same time (2)")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0 where all were noticed, 1 where one survived or a feature has none, 5 for none, 130 where interrupted.

    Raises Refused for bad arguments.
    """
    # Ended as by Ctrl-C, whichever signal it is: what was started is ended with it.
    with as_by_ctrl_c():
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            print("compilepool mutants: interrupted", file=sys.stderr)
            return 130


def _run(arguments: argparse.Namespace) -> int:
    features = read_manifest(bundled() / MANIFEST)
    mutants, chosen = _chosen(arguments, features)
    if not chosen:
        print("compilepool mutants: no mutant is left to be tried", file=sys.stderr)
        return 5
    if arguments.list:
        for one in chosen:
            print(f"{one.id:<44} {one.what}  -> {', '.join(one.kills)}")
        return 0
    began = time.monotonic()
    try:
        results = try_all(chosen, features, scenarios(bundled(), PACKAGE), _at_once(arguments.n), _tell)
    except BadRequirements as error:
        raise Refused(str(error)) from None
    bare = without_mutant(features, mutants)
    _summary(results, features, bare, time.monotonic() - began)
    tried = [result for result in results if result.tried]
    if not tried:
        return 5
    return 0 if all(result.good for result in tried) and not bare else 1


def _chosen(arguments: argparse.Namespace, features: dict[str, Feature]) -> tuple[list[Mutant], list[Mutant]]:
    """All mutants of the folder, and those that were asked for. Raises Refused."""
    _at_once(arguments.n)
    try:
        mutants = read_mutants(Path(arguments.folder), features)
    except BadMutants as error:
        raise Refused(f"{error} (mutants are in the source tree, not in the wheel)") from None
    except FileNotFoundError:
        raise Refused("the working directory does not exist any more") from None
    every = {one.group for one in mutants}
    groups = every if arguments.group is None else words(arguments.group, "--group")
    try:
        check_groups(groups, every, "--group")
    except ValueError as error:
        raise Refused(str(error)) from None
    text = arguments.pool or ""
    return mutants, [one for one in mutants if one.group in groups and text in one.requirements]


def _at_once(text: str) -> int:
    """How many at the same time. Raises Refused."""
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and int(text)):
        raise Refused(f"-n: {text!r} is not allowed; allowed: a whole number from 1 to 9999")
    return int(text)


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
