# SPDX-License-Identifier: Apache-2.0
"""`compilepool bench` as a command, and an environment for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

COMMAND = (sys.executable, "-m", "pytest_compilepool.cli", "bench")


def outer(tmp: Path, **variables: str) -> dict[str, str]:
    """An environment with a folder for temporary files of its own, so that what is left in it is seen."""
    tmp.mkdir(exist_ok=True)
    leading = ("PYTEST_", "TORCHINDUCTOR_", "TRITON_", "COMPILEPOOL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(leading)}
    return {**kept, "TMPDIR": str(tmp), **variables}
