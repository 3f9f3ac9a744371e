# SPDX-License-Identifier: Apache-2.0
"""The kernel's locks on single bytes of a file (POSIX), which end with the process that has them; and who has which."""

from __future__ import annotations

from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where there is no pool of processes to share
    fcntl = None  # type: ignore[assignment]

THERE_ARE = fcntl is not None
"""Whether this system has such locks; without them nothing here may be called but `on_inode`."""

ALONE, SHARED = (fcntl.LOCK_EX, fcntl.LOCK_SH) if THERE_ARE else (0, 0)


def take(handle: int, kind: int, byte: int) -> bool:
    """Lock one byte, or not: whether it is locked now. handle: a descriptor; kind: ALONE or SHARED. Raises OSError."""
    try:
        fcntl.lockf(handle, kind | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
        return False
    return True


def free(handle: int, *bytes_: int) -> None:
    """End this process's locks on these bytes. Raises OSError."""
    for byte in bytes_:
        fcntl.lockf(handle, fcntl.LOCK_UN, 1, byte)


def on_inode(number: int) -> list[tuple[int, str, int]]:
    """Pid, device and first byte of each lock on a file of this inode number, by proc_locks(5); none but on Linux.

    Files of that number on other devices are among them. A line may be missing: the kernel writes them page by page.
    """
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found = []
    for words in map(str.split, lines):
        # 1: POSIX ADVISORY WRITE 4711 fd:01:262165 0 0
        if len(words) == 8 and words[1] == "POSIX" and words[4].isdecimal() and words[6].isdecimal():
            device, _, inode = words[5].rpartition(":")
            if inode == str(number):
                found.append((int(words[4]), device, int(words[6])))
    return found
