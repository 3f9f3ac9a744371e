# SPDX-License-Identifier: Apache-2.0
"""What all of `compilepool bench` take, checked before minutes are spent, and where their results go and come from."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pytest_compilepool.bench import inside, starts, svg
from pytest_compilepool.bench.result import BadResult, Result
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.fresh.interrupt import as_by_ctrl_c
from pytest_compilepool.pool import policy
from pytest_compilepool.words import last_line

T = TypeVar("T")

_BIG = 200 * 2**20  # bytes; no result is as large

_IMPORT_SECONDS = 300.0  # for torch, whatever the limit of a run: what is late is a fault of that run

INTERRUPTED = 2


def add_files(parser: argparse.ArgumentParser) -> None:
    """Declare --json, --svg and --from."""
    parser.add_argument("--json", metavar="FILE", help="write everything there, each run by itself")
    parser.add_argument("--svg", metavar="FILE", help="write a plot there (matplotlib, the extra `plot`)")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="measure nothing: show and plot what --json wrote",
    )


def check_files(arguments: argparse.Namespace) -> None:
    """Whether the files can be written, and whether nothing is asked of a saved result. Raises Refused."""
    for option in ("json", "svg"):
        path = getattr(arguments, option)
        if path is not None and not _writable(path):
            raise Refused(f"--{option}: {path!r} is not allowed; allowed: a file in a folder that is there")
    places = [path for path in (arguments.json, arguments.svg, arguments.source) if path is not None]
    if len({os.path.realpath(path) for path in places}) < len(places):
        raise Refused(
            f"{places[-1]!r} is given twice: what is read and what is written are files of their own"
        )
    if arguments.svg is not None and not arguments.svg.lower().endswith(".svg"):
        raise Refused(f"--svg: {arguments.svg!r} is not allowed; allowed: a file whose name ends in .svg")
    if arguments.svg is not None and not svg.available():
        raise Refused(
            f"--svg: {arguments.svg!r} needs matplotlib, which is not installed ({svg.EXTRA}); --json here and --from "
            "where it is will do"
        )
    if arguments.source is not None:
        passed_over = {"command", "what", "source", "svg"}
        idle = [
            name for name, value in vars(arguments).items() if value is not None and name not in passed_over
        ]
        if idle:
            option = idle[0].replace("_", "-")
            raise Refused(
                f"--{option}: {getattr(arguments, idle[0])!r} is not allowed with --from, which measures nothing; "
                "allowed: --svg"
            )


def _writable(path: str) -> bool:
    """Whether a file can be written there, which is tried: it is there afterwards only if it was before."""
    there = os.path.lexists(path)
    if there and not os.path.isfile(path):
        return path == os.devnull
    try:
        with open(path, "ab"):
            pass
        if not there:
            os.unlink(path)
    except OSError:
        return False
    return True


def load(path: str) -> Any:
    """The JSON of a saved result. Raises Refused."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise Refused(f"--from: {path!r} is not allowed; allowed: a file that --json has written")
        if os.path.getsize(path) > _BIG:
            raise Refused(f"--from: {path!r} is larger than any result of a bench")
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"--from: {path!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError, OverflowError):
        raise Refused(f"--from: {path!r} is no JSON; allowed: what --json has written") from None


def understood(path: str, read: Callable[[Any], T]) -> T:
    """A saved result. read: makes it of plain values, or raises BadResult. Raises Refused."""
    try:
        return read(load(path))
    except BadResult as error:
        raise Refused(
            f"--from: {path!r}: {error}; allowed: what --json of the same bench has written"
        ) from None


def measured(measure: Callable[[], T]) -> T | None:
    """What it has measured; None where that was interrupted, with everything that was started ended."""
    with as_by_ctrl_c():
        try:
            return measure()
        except KeyboardInterrupt:
            print("compilepool bench: interrupted", file=sys.stderr)
            return None


def run(
    arguments: argparse.Namespace,
    bench: str,
    measure: Callable[[argparse.Namespace], Result | None],
    table: Callable[[Result], list[str]],
    draw: Callable[[Result, str], None],
) -> int:
    """A bench that comes to a `Result`: measured, or read from what it was told by --from; written, plotted, printed.

    bench: its name; measure: gives None where it was interrupted; table: its lines; draw: writes a plot to a file.
    Returns 0, 1 where a run failed or a file could not be written, 2 where interrupted. Raises Refused.
    """
    check_files(arguments)
    found: Result | None
    if arguments.source is not None:
        found = understood(arguments.source, lambda told: Result.from_json(told, bench))
    else:
        found = measure(arguments)
    if found is None:
        return INTERRUPTED
    plot = (lambda file: draw(found, file)) if found.samples else None
    written = finish(arguments, found.as_json(), table(found), plot)
    return 0 if written and found.samples and not found.faults else 1


def finish(
    arguments: argparse.Namespace, told: Any, lines: list[str], draw: Callable[[str], None] | None
) -> bool:
    """Write the files and print the table. told: for --json; draw: writes a plot, None where there is nothing to plot.

    Returns whether all that was asked for is written; where not, it says what.
    """
    wrong = []
    if arguments.json is not None:
        try:
            Path(arguments.json).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            wrong.append(f"--json: {arguments.json}: {error.strerror or error}")
    if arguments.svg is not None:
        try:
            if draw is None:
                wrong.append(f"--svg: {arguments.svg}: not written, there is nothing to plot")
            else:
                draw(arguments.svg)
        except OSError as error:
            wrong.append(f"--svg: {arguments.svg}: {error.strerror or error}")
        except (
            Exception
        ) as error:  # of matplotlib's: figures that no axis has room for, text that no font has
            wrong.append(f"--svg: {arguments.svg}: it cannot be drawn: {last_line(error)}")
    # Last: whoever reads it may close the pipe before the end (`head`).
    print("\n".join(["", *lines]))
    for line in wrong:
        print(f"compilepool bench: {line}", file=sys.stderr)
    return not wrong


def number(text: str, option: str, most: int, least: int = 1) -> int:
    """A whole number. Raises Refused."""
    word = text.strip()
    if not (word.isascii() and word.isdecimal() and len(word) < 7 and least <= int(word) <= most):
        raise Refused(f"{option}: {text!r} is not allowed; allowed: whole numbers from {least} to {most}")
    return int(word)


def different_numbers(text: str, option: str, most: int, least: int = 1, fewest: int = 1) -> list[int]:
    """Whole numbers separated by commas, none of them twice. fewest: so many of them at least. Raises Refused."""
    found = [number(word, option, most, least) for word in text.split(",")]
    if len(found) < fewest or len({*found}) < len(found):
        many = {1: "one or more", 2: "two or more"}[fewest]
        raise Refused(f"{option}: {text!r} is not allowed; allowed: {many} different numbers")
    return found


def check_torch() -> None:
    """Whether an interpreter as the measured ones can import torch, which one is started for.

    Raises Refused: else each run of each round would say it.
    """
    try:
        with starts.started(inside.nothing, {}, limit=_IMPORT_SECONDS):
            pass
    except starts.StartFailed as error:
        raise Refused(f"nothing can be measured: {error}") from None


def check_room(processes: list[int]) -> None:
    """Whether a pool of so many fits into the memory that may be used. Raises Refused."""
    most = max(processes)
    decision = policy.decide(capabilities=None, flag=str(most), environ={}, started_with={})
    if decision.decided_by.name == "memory":
        raise Refused(f"--processes: '{most}' is not allowed here: {decision.why}")


def primed(text: str) -> list[bool]:
    """Which kinds of sides there are: primed, not primed, or both, that one first. Raises Refused."""
    kinds = {"yes": [True], "no": [False], "both": [False, True]}
    if text not in kinds:
        raise Refused(f"--prime: {text!r} is not allowed; allowed: {', '.join(kinds)}")
    return kinds[text]


def say(line: str) -> None:
    """How far it has got."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Whoever read has gone (`head`): what is measured is to be written all the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
