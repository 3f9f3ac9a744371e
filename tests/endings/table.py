# SPDX-License-Identifier: Apache-2.0
"""Writes the table of benchmarks/endings.md: python tests/endings/table.py [ENDING...]; half an hour on two CPUs."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from pathlib import Path

from ending_scenario import ENDINGS, POOLS, play

from pytest_compilepool.torch_compat.installed import installed_version


def main(names: list[str]) -> None:
    """Play them one after the other and print a row for each."""
    import os

    cpus = len(os.sched_getaffinity(0))
    print(f"{cpus} CPUs, Python {platform.python_version()}, torch {installed_version()}\n")
    print("| ending | xdist | pool | exit status | ended after, s | nothing left after, s | left | record |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names or ENDINGS:
        for xdist in (False, True):
            if ENDINGS[name].only_xdist and not xdist:
                continue
            for pool in POOLS:
                folder = Path(tempfile.mkdtemp(prefix="ending-"))
                try:
                    seen = play(ENDINGS[name], xdist, pool, folder)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                left = len(seen.left) + len(seen.shared) + len(seen.folders)
                assert seen.there, seen.output
                told = "went down in test_ending.py::test_that_ends_it" in seen.output
                record = told or any("ends_it" in (one.running or "") for one in seen.records)
                kept = "kept" if record else "not needed" if not ENDINGS[name].record else "LOST"
                how = "-n 2" if xdist else "-"
                print(
                    f"| {name} | {how} | {pool} | {seen.status} | {seen.took:.1f} | {seen.clean:.1f} | {left} | {kept} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
