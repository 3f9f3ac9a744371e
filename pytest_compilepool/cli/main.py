# SPDX-License-Identifier: Apache-2.0
"""The command `compilepool`: one file a sub-command, each imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from pytest_compilepool.cli.refusal import BAD_ARGUMENTS, Parser, Refused, listed, sentence

COMMANDS = {
    "doctor": "what this torch can do, and how many processes a pool gets here",
    "run": "the conformance suite: does the pool here keep its promises?",
    "matrix": "results of `run` (cells) from many environments, side by side",
    "compare": "two cells: what regressed, what was fixed",
    "merge": "cells of parts of one run (--shard) made into one",
    "expectations": "add what cells found to a file of known defects",
    "bench": "what a pool costs, and what it saves",
    "reap": "list what earlier sessions left on this machine, and end it",
    "mutants": "does the conformance suite notice pools that are wrong?",
}


def make_parser() -> Parser:
    """The parser of all sub-commands. Imports the file of each, which is why `main` alone calls it."""
    parser = Parser(
        prog="compilepool",
        usage="compilepool COMMAND [OPTION ...]",
        description=listed("Tools around torch.compile's compile pool:", COMMANDS),
        epilog="`compilepool COMMAND --help` has its options.\nExample: compilepool doctor --measure",
    )
    commands = parser.add_subparsers(
        prog=parser.prog, dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS
    )
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, description=sentence(text))
        module = importlib.import_module(f"pytest_compilepool.cli.{name}")
        sub.bad_arguments = getattr(module, "BAD_ARGUMENTS", sub.bad_arguments)
        module.add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command. arguments: without the program's name, `sys.argv` unless given. Returns the exit status."""
    parsed = make_parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal cannot show is told in another way, and ends nothing.
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = importlib.import_module(f"pytest_compilepool.cli.{parsed.command}").run(parsed)
        if sys.stdout is not None:  # there is none where whoever called has closed it
            sys.stdout.flush()
    except Refused as error:
        print(f"compilepool {parsed.command}: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    except BrokenPipeError:
        # Whoever read the output (`head`) has enough of it; Python would say so once more at its end.
        _say_no_more()
        return 1
    except OSError as error:
        if not _output_fails():
            raise
        _say_no_more()
        why = error.strerror or error
        print(f"compilepool {parsed.command}: the output cannot be written: {why}", file=sys.stderr)
        return 1
    return status


def _output_fails() -> bool:
    """Whether it was the output that failed: then it fails once more."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _say_no_more() -> None:
    """What has not been written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
