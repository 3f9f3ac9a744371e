# SPDX-License-Identifier: Apache-2.0
"""The command `compilepool`: one file a sub-command, each imported only when it is called."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from pytest_compilepool.cli.refusal import BAD_ARGUMENTS, Parser, Refused

COMMANDS = {
    "run": "try what a compile pool must do: the bundled conformance suite, against the torch that is installed",
    "mutants": "try whether the conformance suite notices pools that are wrong",
    "bench": "what a pool costs, and what it takes off compiles and off the start of a vLLM engine",
    "matrix": "cells, the results of runs in many environments, side by side",
    "compare": "two cells: what regressed, what was fixed, what cannot be compared",
    "merge": "parts of one run, made with --shard, as one cell",
    "expectations": "bring the file of known defects up to date with cells",
    "reap": "list what earlier sessions have left on this machine, and end it",
    "doctor": "what this torch can do, how many processes a pool would have here and why",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command. arguments: without the program's name, `sys.argv` unless given. Returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(
        prog="compilepool",
        description="Tools around torch.compile's compile pool.",
        epilog="Example: compilepool doctor --measure",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subs: dict[str, Parser] = {}
    for name, text in COMMANDS.items():
        sub = subs[name] = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        module = importlib.import_module(f"pytest_compilepool.cli.{name}")
        sub.bad_arguments = getattr(module, "BAD_ARGUMENTS", sub.bad_arguments)
        module.add_arguments(sub)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        subs[parsed.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal cannot show is told in another way, and ends nothing.
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = importlib.import_module(f"pytest_compilepool.cli.{parsed.command}").run(parsed)
        sys.stdout.flush()
    except Refused as error:
        print(f"compilepool {parsed.command}: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    except BrokenPipeError:
        # Whoever read the output (`head`) has enough of it; Python would say so once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
