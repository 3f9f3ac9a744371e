# SPDX-License-Identifier: Apache-2.0
"""Cells that a sub-command was given: files, and folders in which they lie."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.matrix.cell import BadCell, Cell, read_cell
from pytest_compilepool.matrix.writing import write_whole

_WHAT_A_CELL_IS = "a cell is a file that `compilepool run --cell FILE` has written"


def files(names: Iterable[str]) -> list[Path]:
    """Those files; of a folder all `.json` in it and below. Raises Refused where there is none."""
    found: list[Path] = []
    for name in names:
        if not name:  # which is the working directory to Path, and a variable that is not set to a shell
            raise Refused("'' is no name of a file; allowed: cells, and folders, `.` for this one")
        path = Path(name)
        if _is_folder(path):
            inside = sorted(one for one in path.rglob("*") if one.suffix in (".json", ".jsonl"))
            if not inside:
                raise Refused(f"{name!r} is a folder without a .json file")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise Refused(
                f"{name!r} is not there; allowed: cells, as `compilepool run --cell` writes them, and folders"
            )
    # One that has two names, by a link or by a folder and its file, is one.
    return list({os.path.realpath(file): file for file in reversed(found)}.values())[::-1]


def _is_folder(path: Path) -> bool:
    """Raises Refused for a name that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:
        raise Refused(f"{str(path)[:80]!r} is no name of a file: {error}"[:200]) from None


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """While cells are read and laid out, which makes millions of objects and no garbage, nobody need look for any."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_all(names: Iterable[str]) -> tuple[list[Cell], list[str]]:
    """The cells, and a sentence for each file that cannot be used. Raises Refused where no file is left."""
    cells, bad = [], []
    for file in files(names):
        try:
            cells.append(read_cell(file))
        except BadCell as error:
            bad.append(str(error))
    if not cells:
        raise Refused(f"{'; '.join(bad)}; {_WHAT_A_CELL_IS}")
    return cells, bad


def read_one(name: str) -> Cell:
    """Raises Refused."""
    if _is_folder(Path(name)):
        raise Refused(f"{name!r} is a folder; allowed: a cell, as `compilepool run --cell` writes it")
    try:
        return read_cell(Path(name))
    except BadCell as error:
        raise Refused(f"{error}; {_WHAT_A_CELL_IS}") from None


def write(name: str, text: str, option: str) -> None:
    """Raises Refused where it cannot be written."""
    try:
        write_whole(Path(name), text)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{option}: {name!r} cannot be written: {getattr(error, 'strerror', '') or error}"
        ) from None
