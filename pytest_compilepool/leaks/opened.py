# SPDX-License-Identifier: Apache-2.0
"""What the descriptors of this process point at, with one call of the kernel for each that was there before."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import NamedTuple

PROC = "/proc/self/fd"
DEV = "/dev/fd"

_RACY_NS = 50_000_000
"""A file may be renamed within one tick of the clock that its last change was stamped with: what has changed that lately
is asked for its name again. Ticks are 10 ms at most."""


class Open(NamedTuple):
    """What a descriptor points at. inode: (device, inode); target: as /proc has it, else from fstat."""

    inode: tuple[int, int]
    target: str

    def is_same(self, other: Open) -> bool:
        """Whether they are one file: renaming it changes the target, replacing it the inode."""
        return self is other or self.inode == other.inode or self.target == other.target


class Descriptors:
    """Lists them, again and again.

    A descriptor is looked at with fstat. What it points at takes a second call, and is remembered until the number is
    another file, or the file was written to, renamed or removed, which changes the time of its last change. (So the new
    name of a folder above it may be missed: `look` asks.) Pipes and sockets have names that follow from their inodes.

    folder: where they are listed, PROC or DEV, or "" where nothing can be told.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder or next((name for name in (PROC, DEV) if os.path.isdir(name)), "")
        self._target = _link_target if self._folder == PROC else _stat_target
        self._known: dict[int, tuple[tuple[int, int, int], Open]] = {}
        self._words: dict[tuple[int, int], str] = {}

    def look(self, fd: int) -> Open | None:
        """One of them, nothing remembered; None where it is closed."""
        try:
            info = os.fstat(fd)
            return Open((info.st_dev, info.st_ino), self._target(fd, info))
        except OSError:
            return None

    def all(self) -> dict[int, Open] | None:
        """Every one, by number; None where they cannot be listed."""
        if not self._folder:
            return None
        # Before anything is read: what changes after this is stamped later.
        settled = time.time_ns() - _RACY_NS
        try:
            numbers = os.listdir(self._folder)
        except OSError:
            return None
        known, fstat = self._known, os.fstat
        found: dict[int, Open] = {}
        self._known = {}
        for fd in map(int, numbers):
            try:
                info = fstat(fd)
            except OSError:
                continue  # that of the listing itself, and what another thread has closed
            face = (info.st_dev, info.st_ino, info.st_ctime_ns)
            before = known.get(fd)
            if before is not None and before[0] == face:
                found[fd], self._known[fd] = before[1], before
                continue
            try:
                opened = self._ask(fd, info)
            except OSError:
                continue
            found[fd] = opened
            # All that the kernel makes without a file of its own share one inode: it does not tell them apart.
            if info.st_ctime_ns < settled and not opened.target.startswith("anon_inode:"):
                self._known[fd] = face, opened
        return found

    def _ask(self, fd: int, info: os.stat_result) -> Open:
        kind = (info.st_dev, stat.S_IFMT(info.st_mode))
        if kind in self._words:
            target = f"{self._words[kind]}:[{info.st_ino}]"
        else:
            target = self._target(fd, info)
            # The file system of pipes holds nothing else, and that of sockets: a fifo is of the one that it is in.
            word = target.partition(":")[0]
            if word in ("pipe", "socket") and target == f"{word}:[{info.st_ino}]":
                self._words[kind] = word
        return Open((info.st_dev, info.st_ino), target)


def _link_target(fd: int, info: os.stat_result) -> str:
    return os.readlink(f"{PROC}/{fd}")


def _stat_target(fd: int, info: os.stat_result) -> str:
    """Where there is no /proc: the path if the kernel tells it, else kind and inode as /proc has them."""
    kinds = (
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISDIR, "folder"),
    )
    kind = next((word for test, word in kinds if test(info.st_mode)), "file")
    path = _path_from_kernel(fd) if kind in ("file", "folder", "device") else ""
    return path or f"{kind}:[{info.st_dev}:{info.st_ino}]"


def _path_from_kernel(fd: int) -> str:
    if sys.platform != "darwin":
        return ""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode(errors="replace")
