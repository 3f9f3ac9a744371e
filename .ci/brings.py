# SPDX-License-Identifier: Apache-2.0
"""What a wheel brings along: written down as CycloneDX, and looked up among the known vulnerabilities.

    python .ci/brings.py WHEEL SBOM

WHEEL is installed, with what it depends on, in an environment of its own. SBOM: the file to write, JSON. Needs the
dependency group `release` and an index. The exit status is 0 if nothing of it is known to be vulnerable.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LIMIT = 600
"""Seconds for each command; three of them ask an index."""


def main(wheel: Path, sbom: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="compilepool-brings-") as name:
        place = Path(name)
        venv.create(place, with_pip=False)
        python = str(place / "bin/python")
        call("-m", "pip", "--python", python, "install", "--quiet", str(wheel))
        # Twice the same file for the same packages: without times and random numbers in it.
        call("-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-file", str(sbom), python)
        # What is on the index already; the wheel itself is not.
        frozen = call("-m", "pip", "--python", python, "freeze", "--exclude", "pytest-compilepool")
        (place / "frozen.txt").write_text(frozen)
        print(frozen, end="")
        call("-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "-r", str(place / "frozen.txt"))


def call(*arguments: str) -> str:
    """The standard output of a module. One that fails ends this program with all that it said."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
