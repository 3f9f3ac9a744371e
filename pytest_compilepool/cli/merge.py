# SPDX-License-Identifier: Apache-2.0
"""`compilepool merge`: parts of one run, made with `--shard`, as one cell. Imports no torch."""

from __future__ import annotations

import argparse

from pytest_compilepool.cli import cells
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.matrix.cell import BadCell
from pytest_compilepool.matrix.merge import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.usage = f"{parser.prog} CELL [CELL ...] --out FILE"
    parser.epilog = "Example: compilepool merge part1.json part2.json --out whole.json"
    parser.add_argument("cells", nargs="+", metavar="CELL", help="the parts, files or folders")
    parser.add_argument("--out", metavar="FILE", required=True, help="the cell to write")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, and 1 where a part is missing or has not come to its end. Raises Refused for what is no part of one run."""
    found, bad = cells.read_all(arguments.cells)
    if bad:
        raise Refused("; ".join(bad))
    try:
        made = merge(found)
    except BadCell as error:
        raise Refused(str(error)) from None
    cells.write(arguments.out, made.to_text(), "--out")
    totals = ", ".join(f"{number} {status}" for status, number in made.totals.items())
    entire = made.complete and not made.shard
    whole = "" if entire else "; not a whole run: a part is missing or was cut short"
    print(f"{arguments.out}: {len(found)} parts, {totals}{whole}")
    return 0 if entire else 1
