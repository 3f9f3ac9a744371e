# SPDX-License-Identifier: Apache-2.0
"""`compilepool run`: the bundled conformance suite against the torch that is installed, from any folder."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool.cli import listing
from pytest_compilepool.conformance.expectations import read_expectations
from pytest_compilepool.conformance.manifest import needs_of, read_manifest
from pytest_compilepool.conformance.subjects import DEFAULT, BadRequirements, Subject, ask
from pytest_compilepool.conformance.tomlfile import BadFile
from pytest_compilepool.suite import MANIFEST, SUBJECT, bundled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.add_argument(
        "--mode", metavar="MODE", help="smoke (30 s in all), standard (the default) or stress"
    )
    parser.add_argument("--group", metavar="G", help="these groups of features only, separated by commas")
    parser.add_argument(
        "-n",
        metavar="N",
        help="so many at the same time (twice as many as there are CPUs, at most 8, where pytest-xdist is installed; "
        "0: one after the other)",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the features, and what is known of them here, and try none"
    )
    parser.add_argument("--requirements", metavar="module:Class", help="another pool than torch's own")
    parser.add_argument("--expectations", metavar="FILE", help="known defects of that pool")
    parser.add_argument("--cell", metavar="FILE", help="write the verdicts there, one line of JSON each")
    parser.add_argument("--ci", action="store_true", help="fail if an expectation is stale")
    parser.add_argument("pytest", nargs="*", metavar="ARGUMENT", help="for pytest, after --")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0 (conforms), 1 (something unexpected), 4 (bad arguments), 5 (nothing was tried), as pytest does."""
    try:
        subject = _subject(arguments)
    except (BadFile, BadRequirements) as error:
        if arguments.list and arguments.requirements is None and isinstance(error, BadRequirements):
            # The promises are the same where there is no torch.
            return listing.write(arguments, None, str(error))
        print(f"compilepool run: {error}", file=sys.stderr)
        return 4
    if arguments.list:
        return listing.write(arguments, subject, "")
    # Ended as by Ctrl-C: what was started is ended with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = [str(bundled()), "-p", "compilepool", "-p", "no:cacheprovider", "-c", os.devnull]
    # Nothing is looked for beside the installed files, and nothing is written there.
    command += [f"--rootdir={Path.cwd()}", "-q", "-rN", "--import-mode=importlib"]
    # This command has imported the package before pytest could rewrite its asserts, of which it has none to rewrite.
    command += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    given = {
        "mode": arguments.mode,
        "group": arguments.group,
        "requirements": arguments.requirements,
        "expectations": arguments.expectations,
        "cell": arguments.cell,
    }
    command += [f"--compilepool-{name}={value}" for name, value in given.items() if value is not None]
    command += ["--compilepool-ci"] if arguments.ci else []
    at_once = _at_once(arguments.n)
    if at_once is None:
        return 4
    command += ["-n", at_once, "--dist=load", "--maxschedchunk=1"] if at_once != "0" else []
    # Bytecode of a read-only install cannot be written; elsewhere it must not be.
    sys.dont_write_bytecode = True
    return int(pytest.main([*command, *arguments.pytest], plugins=[_HandOver(subject)]))


class _HandOver:
    """A plugin of the controller: its workers need not ask the pool again, each in an interpreter that imports torch."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker."""
        node.workerinput[SUBJECT] = json.dumps(dataclasses.asdict(self._subject))


def _subject(arguments: argparse.Namespace) -> Subject:
    """The pool that is tried; asked before anything is started. Raises BadFile and BadRequirements."""
    features = read_manifest(bundled() / MANIFEST)
    if arguments.expectations is not None:
        read_expectations(Path(arguments.expectations), features)
    if arguments.requirements is None:
        return ask(DEFAULT, needs_of(features.values()))
    # As `python -m` does it: who names a class of a file that lies here means that file.
    sys.path.append(os.getcwd())
    try:
        return ask(arguments.requirements, needs_of(features.values()))
    except BadRequirements as error:
        raise BadRequirements(f"--requirements: {error}") from None


def _at_once(asked: str | None) -> str | None:
    """How many features at the same time, as text; None, after one sentence, where that cannot be had."""
    has_xdist = importlib.util.find_spec("xdist") is not None
    if asked is None:
        # Most of a feature's time is waiting: for the sidecar's imports, and for a bound where a pool hangs.
        return str(min(8, 2 * (os.cpu_count() or 1))) if has_xdist else "0"
    if not (asked.isdigit() or asked == "auto"):
        print(
            f"compilepool run: -n: {asked!r} is not allowed; allowed: a whole number, or auto",
            file=sys.stderr,
        )
        return None
    if asked != "0" and not has_xdist:
        print(f"compilepool run: -n {asked} needs pytest-xdist, which is not installed", file=sys.stderr)
        return None
    return asked
