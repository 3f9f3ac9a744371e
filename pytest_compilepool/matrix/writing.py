# SPDX-License-Identifier: Apache-2.0
"""A file is written as a whole: whoever reads it meanwhile, or finds the disk full, has the old one or the new."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def remove_earlier(file: Path) -> None:
    """What an earlier run has written there: whatever becomes of this one, it is not what that one found. No device."""
    if file.is_file():
        with contextlib.suppress(OSError):
            Path(os.path.realpath(file)).unlink()


def write_whole(file: Path, text: str) -> None:
    """Through a link to what it points at; into a device or a pipe as it stands. Raises OSError, and has changed nothing."""
    data = text.encode("utf-8", "backslashreplace")
    if file.exists() and not file.is_file():
        with open(file, "wb") as out:
            out.write(data)
        return
    target = Path(os.path.realpath(file))
    part = target.with_name(f".{os.urandom(8).hex()}.part")
    try:
        part.write_bytes(data)
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
