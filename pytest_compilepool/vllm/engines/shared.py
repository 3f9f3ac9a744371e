# SPDX-License-Identifier: Apache-2.0
"""Shared memory of an engine's processes that outlives them: files that no end of a process removes.

Ranks on one host talk through named segments. Whoever made one is to unlink it; a rank that is killed does not, and the
memory stays taken until the machine restarts. Linux: elsewhere nothing is seen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from pytest_compilepool import proctree

MEMORY = Path("/dev/shm")

NOTE = "shared.txt"
"""Name of the file, in an interpreter's folder, with one segment a line."""


def note(folder: Path) -> None:
    """Write down which segments this process and those below it use now: in the end they are to be gone."""
    pids = [os.getpid(), *(row.pid for row in proctree.descendants(os.getpid()) if not row.dead)]
    names = mapped(pids)
    if names:
        with open(folder / NOTE, "a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in sorted(names))


def left(folder: Path) -> list[str]:
    """The segments written down there that are still there, though no living process uses them; by name."""
    try:
        noted = set((folder / NOTE).read_text(encoding="utf-8").split("\n")) - {""}
    except OSError:
        return []
    there = {name for name in noted if (MEMORY / name).exists()}
    return sorted(there - mapped(proctree.table())) if there else []


def remove(names: Iterable[str]) -> None:
    """Remove these segments. Raises nothing."""
    for name in names:
        with contextlib.suppress(OSError):
            (MEMORY / name).unlink()


def mapped(pids: Iterable[int]) -> set[str]:
    """Names of the segments that these processes have mapped; what has no name any more goes with its processes."""
    found = set()
    for pid in pids:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file,
        ):
            for line in file:
                _, is_shared, name = line.rstrip("\n").partition(f" {MEMORY}/")
                if is_shared and not name.endswith(" (deleted)"):
                    found.add(name)
    return found
