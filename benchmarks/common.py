# SPDX-License-Identifier: Apache-2.0
"""What the scripts of this folder have in common."""

from __future__ import annotations

import argparse
import os
import platform


def parser_of(doc: str | None, pairs: int, pairs_of: str) -> argparse.ArgumentParser:
    """A parser with --pairs and --json. doc: of the script; pairs: unless told otherwise; pairs_of: what they are."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=pairs, help=pairs_of)
    parser.add_argument("--json", action="store_true", help="raw figures instead of tables")
    return parser


def machine() -> str:
    """CPUs that this process may use, their kind, the Python."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpus} CPUs, {platform.machine()}, Python {platform.python_version()}"
