# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench compile`: the same kernels compiled with different numbers of processes."""

from __future__ import annotations

import argparse
import importlib.util

from pytest_compilepool import resources
from pytest_compilepool.bench import compile, svg, tables
from pytest_compilepool.bench.result import Result, Side
from pytest_compilepool.bench.starts import StartFailed
from pytest_compilepool.bench.workloads import HERE, MOST_KERNELS, WORKLOADS
from pytest_compilepool.cli import bench_asked as asked
from pytest_compilepool.cli.refusal import Refused, words
from pytest_compilepool.pool.policy import MAX_PROCESSES
from pytest_compilepool.targets import TARGETS
from pytest_compilepool.torch_compat import installed_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. None where it was not given: --from takes none of those that measure."""
    parser.usage = f"{parser.prog} [OPTION ...]"
    parser.epilog = "Example: compilepool bench compile --workload kernels --processes 1,4 --runs 1"
    parser.add_argument("--workload", metavar="A,B", help=f"of {', '.join(WORKLOADS)} (kernels,model)")
    parser.add_argument(
        "--processes", metavar="N,M", help="compared with the fewest of them; 1: no pool (1,2)"
    )
    parser.add_argument("--runs", metavar="N", help="rounds, each with one compile with each number (3)")
    parser.add_argument(
        "--target", metavar="GPU", help="which need not be there, or `here`, which is (cuda:90)"
    )
    parser.add_argument(
        "--prime",
        metavar="WHICH",
        nargs="?",
        const="yes",
        help="is Triton's first compile over before the clock starts, in the workers or, without a pool, in the "
        "process? yes, no, both (yes)",
    )
    parser.add_argument("--no-prime", dest="prime", action="store_const", const="no", help="as --prime no")
    parser.add_argument(
        "--kernels", metavar="N", help=f"of the workload `kernels`, the first N ({MOST_KERNELS}: all)"
    )
    parser.add_argument(
        "--limit", metavar="SECONDS", help="for one run, with its interpreter and its pool (300)"
    )
    asked.add_files(parser)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, 1 where a run failed or a file could not be written, 2 where interrupted. Raises Refused."""
    return asked.run(arguments, "compile", _measured, tables.compile_table, svg.draw_compile)


def _measured(arguments: argparse.Namespace) -> Result | None:
    workloads = words("kernels,model" if arguments.workload is None else arguments.workload, "--workload")
    unknown = [name for name in workloads if name not in WORKLOADS]
    if unknown or len({*workloads}) < len(workloads):
        raise Refused(
            f"--workload: {(unknown or [arguments.workload])[0]!r} is not allowed; allowed: {', '.join(WORKLOADS)}, each "
            "once"
        )
    processes = asked.different_numbers(
        "1,2" if arguments.processes is None else arguments.processes, "--processes", MAX_PROCESSES
    )
    asked.check_room(processes)
    runs = asked.number("3" if arguments.runs is None else arguments.runs, "--runs", 1000)
    count = asked.number(
        str(MOST_KERNELS) if arguments.kernels is None else arguments.kernels, "--kernels", MOST_KERNELS
    )
    if arguments.kernels is not None and "kernels" not in workloads:
        raise Refused(f"--kernels: {arguments.kernels!r} is not allowed without `kernels` in --workload")
    limit = float(asked.number("300" if arguments.limit is None else arguments.limit, "--limit", 86400))
    kinds = asked.primed("yes" if arguments.prime is None else arguments.prime)
    target = "cuda:90" if arguments.target is None else arguments.target
    _check_target(target)
    sides = [Side(number, kind, name) for name in workloads for number in processes for kind in kinds]

    def measure() -> Result:
        asked.check_torch()
        triton, device = compile.ask_gpu(limit) if target == HERE else ("", "")
        wish = compile.Wish(target, count, limit, triton, device)
        return compile.measure(sides, runs, wish, asked.say)

    try:
        return asked.measured(measure)
    except StartFailed as error:
        raise Refused(f"--target: {target!r} is not allowed here: {error}") from None


def _check_target(target: str) -> None:
    if target != HERE and target not in TARGETS:
        raise Refused(f"--target: {target!r} is not allowed; allowed: {', '.join(TARGETS)}, or {HERE}")
    if installed_version("torch") is None:
        raise Refused("torch is not installed, so there is nothing to compile with")
    if importlib.util.find_spec("triton") is None:
        raise Refused("triton is not installed, so no kernel can be compiled (pip install triton)")
    if target == HERE and not resources.gpu_count().count:
        raise Refused(
            f"--target: {HERE!r} is not allowed here: there is no GPU that this process may use; allowed: "
            f"{', '.join(TARGETS)}"
        )
