# SPDX-License-Identifier: Apache-2.0
"""Files of text that somebody named: read only where they are files, and not larger than they can be."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_text(file: Path, most: int) -> str:
    """What is in it, whoever owns it, by a link as well. most: bytes that it may have.

    Raises OSError, for a pipe or a device too, which might never end, and ValueError where it is no UTF-8.
    """
    # Not waiting for somebody who writes to a pipe.
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if stat.S_ISFIFO(found.st_mode):
            raise OSError("it is a pipe; allowed: a file")
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is a device; allowed: a file")
        with open(handle, encoding="utf-8", closefd=False) as opened:
            # The size of what the kernel makes up, such as the files of /proc, is not known before.
            text = opened.read(most + 1) if found.st_size <= most else ""
        if found.st_size > most or len(text) > most:
            raise OSError(f"it is larger than {most >> 20} MiB")
        return text
    finally:
        os.close(handle)
