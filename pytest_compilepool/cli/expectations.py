# SPDX-License-Identifier: Apache-2.0
"""`compilepool expectations update`: what cells found that nobody knew, as entries of a file. Imports no torch."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from pytest_compilepool.cli import cells
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.conformance.definition import MANIFEST
from pytest_compilepool.conformance.expectations import read_expectations
from pytest_compilepool.conformance.manifest import Feature, read_manifest
from pytest_compilepool.conformance.tomlfile import BadFile
from pytest_compilepool.matrix.updating import update, without
from pytest_compilepool.suite import bundled
from pytest_compilepool.words import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.usage = f"{parser.prog} update CELL [CELL ...] --file FILE [OPTION ...]"
    parser.epilog = "Example: compilepool expectations update here.json --file known.toml --dry-run"
    parser.add_argument(
        "what", choices=["update"], metavar="update", help="the only thing that there is to do"
    )
    parser.add_argument(
        "cells", nargs="+", metavar="CELL", help="what `compilepool run --cell` wrote, or folders"
    )
    parser.add_argument("--file", metavar="FILE", required=True, help="the expectations, changed in place")
    parser.add_argument("--bug", metavar="LINK", default="", help="of what is added: https://...")
    parser.add_argument("--suite", metavar="FOLDER", help="with a features.toml; else the bundled suite's")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be changed, and change nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, and 1 where something is left to do by hand. Raises Refused for bad arguments and files."""
    if arguments.bug and not arguments.bug.startswith("https://"):
        raise Refused(f"--bug: {arguments.bug!r} is not allowed; allowed: a link that begins with https://")
    if arguments.suite == "":
        raise Refused("--suite: '' is not allowed; allowed: a folder with a features.toml")
    found, bad = cells.read_all(arguments.cells)
    if bad:
        raise Refused("; ".join(bad))
    file = Path(arguments.file)
    # Not Path.exists(): that raises for a name that no file can have.
    if not os.path.exists(file):
        raise Refused(
            f"--file: {show(arguments.file)} is not there; allowed: expectations, an empty file at first"
        )
    try:
        features = read_manifest(Path(arguments.suite or bundled()) / MANIFEST)
        entries = read_expectations(file, features)
    except BadFile as error:
        raise Refused(str(error)) from None
    try:
        changes = update(found, entries, arguments.bug)
    except ValueError as error:
        raise Refused(str(error)) from None
    unknown = sorted({name for cell in found for name in cell.results} - features.keys())
    if unknown:
        raise Refused(
            f"features of another suite: {', '.join(unknown[:5])}; --suite names the folder of theirs"
        )
    text = file.read_text(encoding="utf-8")
    text = without(text, [int(one.where.rpartition(":")[2]) for one in changes.obsolete]).rstrip("\n")
    text = "\n\n".join([*([text] if text else []), *(block.rstrip("\n") for block in changes.added)]) + "\n"
    _check(text, file, features)
    if not arguments.dry_run and (changes.added or changes.obsolete):
        cells.write(arguments.file, text, "--file")
    for block in changes.added:
        print(f"added:\n{block}")
    for entry in changes.obsolete:
        print(f"removed: {entry.where}: {entry.feature}, torch {entry.torch}: is kept now")
    print("\n".join(changes.told) or f"{len(changes.added)} added, {len(changes.obsolete)} removed")
    return 1 if changes.told else 0


def _check(text: str, file: Path, features: dict[str, Feature]) -> None:
    """Raises Refused where the file could not be read back: nothing has been written by then."""
    with tempfile.TemporaryDirectory(prefix="compilepool-") as folder:
        made = Path(folder, file.name)
        made.write_text(text, encoding="utf-8", errors="backslashreplace")
        try:
            read_expectations(made, features)
        except BadFile as error:
            raise Refused(f"not changed: what it would become is not right: {error}") from None
