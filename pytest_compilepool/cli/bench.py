# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench`: what a pool costs, and what it takes off compiles and off the start of a vLLM engine."""

from __future__ import annotations

import argparse
from typing import Any

from pytest_compilepool.cli import bench_compile, bench_pool, bench_vllm
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.cli.refusal import listed, sentence

_BENCHES = {
    "pool": (bench_pool, "what a pool costs, by its number of processes"),
    "compile": (
        bench_compile,
        "what a pool saves where caches are empty, and the most that it could",
    ),
    "vllm": (bench_vllm, "what a pool saves at the start of a vLLM engine"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command, which has sub-commands of its own."""
    parser.usage = f"{parser.prog} WHAT [OPTION ...]"
    parser.description = listed(
        "Measure, in rounds, each in a fresh interpreter:",
        {name: text for name, (_, text) in _BENCHES.items()},
    )
    parser.epilog = "Example: compilepool bench pool --runs 1"
    whats: Any = parser.add_subparsers(
        prog=parser.prog, dest="what", metavar="WHAT", required=True, help=argparse.SUPPRESS
    )
    for name, (module, text) in _BENCHES.items():
        sub = whats.add_parser(name, description=sentence(text))
        sub.bad_arguments = BAD_ARGUMENTS
        module.add_arguments(sub)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, 1 where a run failed or a file could not be written, 2 where interrupted. Raises Refused."""
    status: int = _BENCHES[arguments.what][0].run(arguments)
    return status
