# SPDX-License-Identifier: Apache-2.0
"""The command `compilepool`: one file a sub-command, each imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "run": "try what a compile pool must do: the bundled conformance suite, against the torch that is installed",
    "mutants": "try whether the conformance suite notices pools that are wrong",
    "doctor": "what this torch can do, how many processes a pool would have here and why",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command. arguments: without the program's name, `sys.argv` unless given. Returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="compilepool",
        description="Tools around torch.compile's compile pool.",
        epilog="Example: compilepool doctor --measure",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        module = importlib.import_module(f"pytest_compilepool.cli.{name}")
        module.add_arguments(sub)
    parsed = parser.parse_args(arguments)
    status: int = importlib.import_module(f"pytest_compilepool.cli.{parsed.command}").run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
