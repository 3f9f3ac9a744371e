# SPDX-License-Identifier: Apache-2.0
"""Shell as a service would run it, with stand-ins for the commands that only the service has."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path


def put(folder: Path, name: str, text: str) -> None:
    """Make a command of that name, of this Python code."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def run(
    script: str, *, folder: Path, tools: Path, options: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it in that folder, with what lies in tools found first. options: of bash, beside -e."""
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", *options, "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
