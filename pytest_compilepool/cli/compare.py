# SPDX-License-Identifier: Apache-2.0
"""`compilepool compare`: two cells beside each other, what regressed and what did not. Imports no torch."""

from __future__ import annotations

import argparse

from pytest_compilepool.cli import cells
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.matrix.compare import lines, regressed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.epilog = "Example: compilepool compare before.json after.json"
    parser.add_argument("base", metavar="BASE", help="a cell: how it was")
    parser.add_argument("head", metavar="HEAD", help="a cell: how it is")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 where something regressed that is not known, else 0. Raises Refused for a file that is no cell."""
    base, head = cells.read_one(arguments.base), cells.read_one(arguments.head)
    print("\n".join(lines(base, head)))
    return int(regressed(base, head))
