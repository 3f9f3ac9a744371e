# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench pool`: what a pool costs, by its number of processes."""

from __future__ import annotations

import argparse
import importlib.util

from pytest_compilepool.bench import pool, svg, tables
from pytest_compilepool.bench.result import Result, Side
from pytest_compilepool.cli import bench_asked as asked
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.pool.policy import MAX_PROCESSES
from pytest_compilepool.targets import BadTarget, triton_target
from pytest_compilepool.torch_compat import installed_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. None where it was not given: --from takes none of those that measure."""
    parser.usage = f"{parser.prog} [OPTION ...]"
    parser.epilog = "Example: compilepool bench pool --processes 2,4 --runs 1"
    parser.add_argument("--processes", metavar="N,M", help="sizes of the pools, each at least 2 (2,4)")
    parser.add_argument("--runs", metavar="N", help="rounds, each with one pool of each size (3)")
    parser.add_argument(
        "--prime", metavar="WHICH", help="do workers inherit a first Triton compile? yes, no, both (no)"
    )
    parser.add_argument("--target", metavar="GPU", help="what that compile is for (cuda:90)")
    parser.add_argument(
        "--idle", metavar="SECONDS", help="how long a quiesced sidecar is watched (5); 0: not"
    )
    parser.add_argument("--limit", metavar="SECONDS", help="for one pool, with its interpreter (300)")
    asked.add_files(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, 1 where a run failed or a file could not be written, 2 where interrupted. Raises Refused."""
    return asked.run(arguments, "pool", _measured, tables.pool_table, svg.draw_pool)


def _measured(arguments: argparse.Namespace) -> Result | None:
    processes = asked.different_numbers(
        "2,4" if arguments.processes is None else arguments.processes, "--processes", MAX_PROCESSES, 2
    )
    asked.check_room(processes)
    runs = asked.number("3" if arguments.runs is None else arguments.runs, "--runs", 1000)
    idle = asked.number("5" if arguments.idle is None else arguments.idle, "--idle", 3600, 0)
    limit = asked.number("300" if arguments.limit is None else arguments.limit, "--limit", 86400)
    kinds = asked.primed("no" if arguments.prime is None else arguments.prime)
    try:
        target = triton_target("cuda:90" if arguments.target is None else arguments.target, "--target")
    except BadTarget as error:
        raise Refused(str(error)) from None
    if installed_version("torch") is None:
        raise Refused("torch is not installed, so there is no pool to measure")
    if importlib.util.find_spec("triton") is None:
        for option, given in (("--prime", True in kinds), ("--target", arguments.target is not None)):
            if given:
                raise Refused(f"{option}: needs triton, which is not installed (pip install triton)")
        target = ""
    if idle >= limit:
        raise Refused(f"--idle: '{idle}' is not allowed; allowed: less than --limit, {limit}")
    sides = [Side(number, kind) for number in processes for kind in kinds]

    def measure() -> Result:
        asked.check_torch()
        return pool.measure(sides, runs, target=target, idle=float(idle), limit=float(limit), say=asked.say)

    return asked.measured(measure)
