# SPDX-License-Identifier: Apache-2.0
"""`compilepool matrix`: cells side by side, in a terminal, as Markdown, and as data. Imports no torch."""

from __future__ import annotations

import argparse
import difflib
import json
import sys

from pytest_compilepool.cli import cells
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.conformance.definition import MANIFEST
from pytest_compilepool.conformance.manifest import read_manifest
from pytest_compilepool.matrix import plain
from pytest_compilepool.matrix.defects import defects
from pytest_compilepool.matrix.history import history
from pytest_compilepool.matrix.page import NoTemplates, page
from pytest_compilepool.matrix.support import support
from pytest_compilepool.matrix.table import Matrix
from pytest_compilepool.suite import bundled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.usage = f"{parser.prog} [OPTION ...] CELL [CELL ...]"
    parser.epilog = "Example: compilepool matrix before.json after.json --html matrix.html"
    parser.add_argument(
        "cells", nargs="+", metavar="CELL", help="what `compilepool run --cell` wrote, or folders"
    )
    parser.add_argument("--html", metavar="OUT", help="write one static page (jinja2, the extra `report`)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--markdown", action="store_true", help="changed rows only, for the summary of a CI step"
    )
    shown.add_argument(
        "--defects", action="store_true", help="every defect: where it appears, where it is gone"
    )
    parser.add_argument(
        "--support-json", metavar="OUT", help="write since and until when each feature is kept"
    )
    shown.add_argument("--feature", metavar="ID", help="one feature through all builds, and where it changed")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, and 1 where a file could not be used. Raises Refused where none can."""
    with cells.without_collector():
        return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    found, bad = cells.read_all(arguments.cells)
    for sentence in bad:
        print(f"compilepool matrix: left out: {sentence}", file=sys.stderr)
    matrix = Matrix(found)
    if arguments.feature is not None and arguments.feature not in matrix.features:
        near = difflib.get_close_matches(arguments.feature, matrix.features, 1)
        hint = (
            f"; did you mean {near[0]}?" if near else "; compilepool run --list --mode stress has their names"
        )
        raise Refused(f"--feature: {arguments.feature!r} is in none of these cells{hint}")
    if arguments.support_json is not None:
        cells.write(arguments.support_json, json.dumps(support(matrix), indent=1) + "\n", "--support-json")
    if arguments.html is not None:
        try:
            text = page(matrix, _musts(), bad)
        except NoTemplates as error:
            raise Refused(f"--html: {error}") from None
        cells.write(arguments.html, text, "--html")
    if arguments.feature is not None:
        lines = history(found, arguments.feature)
    elif arguments.defects:
        lines = defects(matrix)
    elif arguments.markdown:
        lines = plain.markdown(matrix)
    else:
        lines = plain.terminal(matrix)
    print("\n".join(lines))
    return 1 if bad else 0


def _musts() -> dict[str, str]:
    """The sentences of the bundled suite; another's are not known here."""
    return {name: feature.must for name, feature in read_manifest(bundled() / MANIFEST).items()}
