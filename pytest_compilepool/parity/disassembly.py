# SPDX-License-Identifier: Apache-2.0
"""The first instruction in which two binaries differ, in words, where there is a disassembler."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

_SECONDS = 60.0


def first_difference(one: list[str], other: list[str]) -> tuple[int, str, str] | None:
    """The first line in which two texts differ: (number from 1, here, there), or None. A missing one is "(end)"."""
    for number in range(max(len(one), len(other))):
        here = one[number] if number < len(one) else "(end)"
        there = other[number] if number < len(other) else "(end)"
        if here != there:
            return number + 1, here.strip(), there.strip()
    return None


def instructions(file: Path) -> list[str] | None:
    """A cubin's instructions, one a line, without their encoding; None where nobody here can read them.

    Uses the nvdisasm that Triton's wheel brings along, or one on the path.
    """
    tool = _nvdisasm()
    if tool is None or file.suffix != ".cubin":
        return None
    try:
        done = subprocess.run(
            [tool, "-c", str(file)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    found = []
    for line in done.stdout.splitlines():
        told = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?;)", line)
        if told:
            found.append(re.sub(r"\s+", " ", told[1]))
    return found or None


def _nvdisasm() -> str | None:
    spec = importlib.util.find_spec("triton")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        tool = Path(folder) / "backends" / "nvidia" / "bin" / "nvdisasm"
        if tool.is_file():
            return str(tool)
    return shutil.which("nvdisasm")
