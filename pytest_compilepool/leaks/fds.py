# SPDX-License-Identifier: Apache-2.0
"""File descriptors left open, with what they point at, and who holds them."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import stat
import sys
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.leaks.base import MISSING, Change, LeakChecker, Owned
from pytest_compilepool.leaks.holders import fd_holders
from pytest_compilepool.leaks.opened import PROC, Descriptors, Open
from pytest_compilepool.records import Leak, Snapshot

# Device files of accelerators. Their driver opens them once and keeps them for the life of the process.
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/accel", "/dev/habanalabs")

# Descriptors that multiprocessing's helpers keep for the life of the process, by design.
_HELPER_FDS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_fd"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_alive_fd"),
)


# Standard input, output and error: whoever captures output swaps what they point at, pytest for each phase.
_STANDARD = {0, 1, 2}


class FdChecker(LeakChecker):
    """Open descriptors of this process. key: the number; value: an `Open`.

    folder: where descriptors are listed; the first of /proc/self/fd and /dev/fd that is there. Where there
    is none, nothing can be told. Passed over: the standard streams, `Owned.fds`, those of multiprocessing's
    helpers and its shared heap, the lock of libuv (uvloop), and what a GPU driver opened: device files always, and
    in an interval in which it opened one also its nameless pipes and sockets, which cannot be told from the test's.
    """

    name: ClassVar[str] = "fds"
    cheap: ClassVar[bool] = True

    def __init__(self, owned: Owned, folder: str | None = None) -> None:
        self._owned = owned
        self._descriptors = Descriptors(folder)

    def measure(self) -> Snapshot | None:
        found = self._descriptors.all()
        if found is None:
            return None
        passed = self._owned.fds() | _helper_fds() | _STANDARD
        # multiprocessing's arena of shared values, which it keeps for the life of the process.
        heap = f"/pym-{Genuine.getpid()}-"
        return {fd: opened for fd, opened in found.items() if fd not in passed and heap not in opened.target}

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        new = {fd: self._now(fd, opened) for fd, opened in after.items() if not _was_open(fd, opened, before)}
        # A driver opens devices when it is asked whether there is a GPU, and again when it is first used.
        driver_at_work = any(_is_device(opened) for opened in new.values())
        locks = _locks_of_libuv(new)
        for fd, opened in new.items():
            if not _is_device(opened) and not (driver_at_work and _is_nameless(opened)) and fd not in locks:
                yield fd, before.get(fd, MISSING), opened

    def _now(self, fd: Hashable, opened: Open) -> Open:
        """The same by the name that it has now: a folder above it may have been renamed since it was remembered."""
        assert isinstance(fd, int)
        now = self._descriptors.look(fd)
        return now if now is not None and now.inode == opened.inode else opened

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak | None:
        before = "not open" if old is MISSING else f"fd {key} -> {old.target}"
        after = f"fd {key} -> {new.target}"
        return Leak(self.name, stable_target(new.target), before, after, _other_end(new), handle=(key, new))

    def diff(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        leaks = super().diff(before, after)
        survey = _Survey({leak.handle[0]: leak.handle[1] for leak in leaks})
        return [dataclasses.replace(leak, handle=(*leak.handle, survey)) for leak in leaks]

    def restore(self, leaks: Sequence[Leak]) -> None:
        """Close those that nobody holds and that still are what they were: files, folders and pipes.

        What a Python object holds is that object's, and would be closed a second time by it; what has no name
        (sockets, event counters, ...) may be a C library's.
        """
        for leak in leaks:
            fd, opened, survey = leak.handle
            now = self._descriptors.look(fd)
            if fd not in survey.reasons and now is not None and now.inode == opened.inode:
                os.close(fd)

    def note(self, leak: Leak) -> str:
        if leak.handle is None:
            return ""
        fd, _, survey = leak.handle
        return f"it stays open: {survey.reasons[fd]}" if fd in survey.reasons else ""


def stable_target(target: str) -> str:
    """A target without its number: `pipe:[123]` -> `pipe`, `anon_inode:[eventpoll]` -> `eventpoll`."""
    if match := re.fullmatch(r"anon_inode:\[?(.*?)\]?", target):
        return match[1]
    if match := re.fullmatch(r"(\w+):\[.*\]", target):
        return match[1]
    return _without_random_parts(target.removesuffix(" (deleted)"))


def _without_random_parts(path: str) -> str:
    """A path as a pattern that fits the next run, too: names of tempfile's and numbers of pytest's become `*`."""
    parts = path.split("/")
    changing = [re.sub(r"^tmp[a-z0-9_]{8}$|^(pytest-|popen-gw)\d+$", _starred, part) for part in parts]
    if changing == parts:
        return path
    # Now it is read as a pattern: what is special in one must be meant as it stands.
    return "/".join(part if part.endswith("*") else re.sub(r"([\[?])", r"[\1]", part) for part in changing)


def _starred(match: re.Match[str]) -> str:
    return f"{match[1] or 'tmp'}*"


def _was_open(fd: Hashable, opened: Open, before: Snapshot) -> bool:
    old = before.get(fd)
    return old is not None and opened.is_same(old)


def _is_device(opened: Open) -> bool:
    return opened.target.startswith(_DEVICES)


def _is_nameless(opened: Open) -> bool:
    return not opened.target.startswith("/") or opened.target.startswith("/memfd:")


def _locks_of_libuv(new: dict[Hashable, Open]) -> set[Hashable]:
    """Both ends of a pipe in which one byte waits: libuv makes it once, and ends the process that closes it.

    It is how libuv locks its signal handling. Looked for only where uvloop, which brings a libuv, is loaded.
    """
    ends: dict[str, list[int]] = {}
    for fd, opened in new.items() if _libuv_is_loaded() else ():
        if opened.target.startswith("pipe:") and isinstance(fd, int):
            ends.setdefault(opened.target, []).append(fd)
    return {fd for pair in ends.values() if len(pair) == 2 and _unread(pair[0]) == 1 for fd in pair}


def _libuv_is_loaded() -> bool:
    return "uvloop" in sys.modules


def _unread(fd: int) -> int:
    """How many bytes wait in a pipe, asked at either end; -1 if that cannot be told."""
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return -1


def _helper_fds() -> set[int]:
    found = set()
    for module, name, attribute in _HELPER_FDS:
        fd = getattr(getattr(sys.modules.get(module), name, None), attribute, None)
        if isinstance(fd, int):
            found.add(fd)
    return found


def _other_end(opened: Open) -> str:
    """Who below this process holds the other end of a pipe."""
    target = opened.target
    if not target.startswith("pipe:") or not os.path.isdir(PROC):
        return ""
    names = []
    for row in proctree.descendants(Genuine.getpid()):
        folder = f"/proc/{row.pid}/fd"
        try:
            if any(os.readlink(f"{folder}/{fd}") == target for fd in os.listdir(folder)):
                names.append(f"pid {row.pid} ({row.name})")
        except OSError:
            continue  # it ended, or one of its descriptors did
    return (
        f"the pipe is also held by {', '.join(names)}" if names else "no child of this process holds the pipe"
    )


class _Survey:
    """Why descriptors stay open, told once for a set of leaks and only when somebody asks."""

    def __init__(self, opened: dict[int, Open]) -> None:
        self._opened = opened

    @functools.cached_property
    def reasons(self) -> dict[int, str]:
        """By number; what is not in it is nobody's."""
        holders = fd_holders(set(self._opened))
        mapped = _mapped()
        driver = any(target.startswith(_DEVICES) for target in _targets())
        found = {}
        for fd, opened in self._opened.items():
            if fd in holders:
                article = "an" if holders[fd][0] in "AEIOU" else "a"
                found[fd] = f"{article} {holders[fd]} holds it"
            elif opened.target in mapped or opened.inode in mapped:
                found[fd] = "the file is mapped into memory"
            elif _is_database(opened):
                found[fd] = "sqlite may be using it"
            elif driver and opened.target.startswith("pipe:"):
                # Closing one under CUDA breaks it for the life of the process (seen on torch 2.11).
                found[fd] = "no Python object holds it, but the GPU's driver may"
            elif _libuv_is_loaded() and opened.target.startswith("pipe:"):
                # Closing libuv's ends the process, with uvloop's next child or signal (seen on uvloop 0.22).
                found[fd] = "no Python object holds it, but uvloop may"
            elif not _is_plain(fd, opened):
                found[fd] = "no Python object holds it, but a C library may"
        return found


def _is_plain(fd: int, opened: Open) -> bool:
    """A file, a folder or a pipe."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    named = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return stat.S_ISFIFO(mode) or (named and not opened.target.startswith(("/memfd:", "anon_inode:")))


def _targets() -> Iterator[str]:
    """What all descriptors of this process point at, where that is told."""
    for fd in os.listdir(PROC) if os.path.isdir(PROC) else ():
        try:
            yield os.readlink(f"{PROC}/{fd}")
        except OSError:
            continue  # that of the listing itself


def _mapped() -> set[Any]:
    """Paths and (device, inode) of all files mapped into memory: a mapping keeps a number of its own."""
    found: set[Any] = set()
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(maxsplit=5) for line in file]
    except OSError:
        return found
    for row in rows:
        if len(row) == 6 and row[4] != "0":
            major, _, minor = row[3].partition(":")
            found |= {row[5], (os.makedev(int(major, 16), int(minor, 16)), int(row[4]))}
    return found


def _is_database(opened: Open) -> bool:
    """A file of a database that sqlite, if it is loaded, may have opened: the database, or its journal."""
    if "_sqlite3" not in sys.modules:
        return False
    path = opened.target.removesuffix(" (deleted)")
    for end in ("-journal", "-wal", "-shm"):
        path = path.removesuffix(end)
    try:
        with open(path, "rb") as file:
            return os.path.isfile(path) and file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False
