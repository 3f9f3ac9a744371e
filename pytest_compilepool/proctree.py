# SPDX-License-Identifier: Apache-2.0
"""The process table, read once: who lives, who is whose child, and who only looks like a stranger.

On Linux one pass over /proc gives pid, parent, state and start time of everything; elsewhere
psutil does, slower. A process that forked twice is nobody's child, so two marks find it again: the
environment tag that a session sets (`TAG`), and the `--parent=PID` that Inductor puts on the
command line of its sidecar and that the forked workers share.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pytest_compilepool.genuine import Genuine
from pytest_compilepool.records import ProcessKey

TAG = "COMPILEPOOL_SESSION"
"""Environment variable that a session sets so that its descendants can be told from strangers."""

_BELOW = "."
_LINUX = sys.platform.startswith("linux")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_STAT_SIZE = 2048
"""Bytes that hold more than the fields of /proc/PID/stat that are read here."""

T = TypeVar("T")


def tag_below() -> str:
    """A new value of `TAG` for an interpreter that is told from the rest of this session, and is still of it.

    Where this session is killed, its guard knows by the beginning what it has to end.
    """
    mine = os.environ.get(TAG) or str(Genuine.getpid())
    return f"{mine}{_BELOW}{os.urandom(16).hex()}"


def is_tagged(pid: int, tag: str) -> bool:
    """Whether that process was started with this tag, or with one that `tag_below` has made below it."""
    value = environment_value(pid, TAG)
    return value is not None and (value == tag or value.startswith(tag + _BELOW))


@dataclass(frozen=True)
class Proc:
    """One row of the process table.

    state: the letter of /proc/PID/stat (R, S, D, Z, T, ...), or "Z" for psutil's zombie, else "S".
    threads: how many it has; 1 where that is not known.
    """

    key: ProcessKey
    parent: int
    state: str
    name: str
    threads: int = 1

    @property
    def pid(self) -> int:
        return self.key.pid

    @property
    def dead(self) -> bool:
        """Exited, whether or not somebody has waited for it.

        One whose main thread has ended while others still run is a zombie by its letter: nobody can wait
        for it yet.
        """
        return self.state in ("Z", "X") and self.threads <= 1


class _Readings(threading.local):
    """rows: the last table that this thread has read; shared: others are given it, too."""

    rows: Mapping[int, Proc] = {}
    shared = False
    is_read = False


_readings = _Readings()


@contextlib.contextmanager
def one_reading() -> Iterator[None]:
    """What asks this thread for the whole table in here is given one and the same, that of whoever asks first."""
    if _readings.shared:
        yield
        return
    _readings.shared, _readings.is_read = True, False
    try:
        yield
    finally:
        _readings.shared = False


def table() -> dict[int, Proc]:
    """Every process that this one can see, by pid. Takes nothing, raises nothing: what ends meanwhile is left out."""
    if not (_readings.shared and _readings.is_read):
        _readings.rows = _linux_table(_readings.rows) if _LINUX else _psutil_table()
        _readings.is_read = True
    return dict(_readings.rows)


def _linux_table(before: Mapping[int, Proc]) -> dict[int, Proc]:
    """before: an earlier one: making a row takes longer than seeing that it is the same."""
    rows: dict[int, Proc] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            pid = int(entry)
            row = _parse_stat(pid, _read_stat(pid), before.get(pid))
            if row is not None:
                rows[pid] = row
    return rows


def lookup(pid: int) -> Proc | None:
    """One process, or None if there is none of that pid."""
    if not _LINUX:
        return _psutil_lookup(pid)
    return _parse_stat(pid, _read_stat(pid))


def _read_stat(pid: int) -> bytes:
    """Nothing for what is gone. Three calls of the kernel, where open() makes seven."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, _STAT_SIZE)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _parse_stat(pid: int, text: bytes, before: Proc | None = None) -> Proc | None:
    # The name stands in brackets and may hold brackets and blanks itself: cut at the last one.
    head, _, tail = text.rpartition(b")")
    fields = tail.split(None, 20)
    if len(fields) < 20:
        return None
    name = head.partition(b"(")[2].decode(errors="replace")
    started = int(fields[19]) / _TICKS
    parent, state, threads = int(fields[1]), fields[0].decode(), int(fields[17])
    if (
        before is not None
        and before.key.started == started
        and before.parent == parent
        and before.state == state
        and before.name == name
        and before.threads == threads
    ):
        return before
    return Proc(ProcessKey(pid, started), parent, state, name, threads)


def _psutil_table() -> dict[int, Proc]:
    import psutil

    rows = (_psutil_lookup(pid) for pid in psutil.pids())
    return {row.pid: row for row in rows if row is not None}


def _psutil_lookup(pid: int) -> Proc | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
            return Proc(ProcessKey(pid, process.create_time()), process.ppid(), state, process.name())
    except psutil.Error:
        return None


def own_key() -> ProcessKey:
    """This process."""
    row = lookup(Genuine.getpid())
    return row.key if row is not None else ProcessKey(Genuine.getpid(), 0.0)


def alive(key: ProcessKey) -> bool:
    """Whether that very process still runs: a zombie does not, nor does another one of the same pid."""
    row = lookup(key.pid)
    return row is not None and row.key == key and not row.dead


def reaped(key: ProcessKey) -> bool:
    """Whether that very process has ended *and* was waited for: nothing of it is left, not even a zombie."""
    row = lookup(key.pid)
    return row is None or row.key != key


def descendants(pid: int, rows: dict[int, Proc] | None = None) -> list[Proc]:
    """Children, their children, and so on, nearest first; `pid` itself is not among them."""
    return below(pid, by_parent(table() if rows is None else rows))


def by_parent(rows: Mapping[int, Proc]) -> dict[int, list[Proc]]:
    """The children of each process that has any. rows: what `table()` gave."""
    children: dict[int, list[Proc]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row)
    return children


def below(pid: int, children: Mapping[int, list[Proc]]) -> list[Proc]:
    """As `descendants`, for who asks for several. children: what `by_parent` gave."""
    found = list(children.get(pid, ()))
    for row in found:  # it grows meanwhile
        found += children.get(row.pid, ())
    return found


def command(pid: int) -> list[str]:
    """The command line, or [] where it cannot be read (ended, a zombie, another user's)."""
    if _LINUX:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return [part.decode(errors="replace") for part in file.read().split(b"\0") if part]
        except OSError:
            return []
    return _from_psutil(pid, lambda process: list(process.cmdline()), [])


def environment_value(pid: int, name: str) -> str | None:
    """One variable of the environment that a process was started with, or None."""
    if _LINUX:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                blob = file.read()
        except OSError:
            return None
        wanted = name.encode() + b"="
        for part in blob.split(b"\0"):
            if part.startswith(wanted):
                return part[len(wanted) :].decode(errors="replace")
        return None
    value: str | None = _from_psutil(pid, lambda process: process.environ().get(name), None)
    return value


def strays(owner: int, tag: str | None, rows: dict[int, Proc]) -> list[Proc]:
    """Processes that belong to `owner` though they are not below it in the tree.

    owner: pid that a sidecar would name as `--parent`; tag: value of `TAG`, or None not to look;
    rows: what `table()` gave. Only this user's processes can be read, so only those are found.
    """
    below = {row.pid for row in descendants(owner, rows)} | {owner}
    above = ancestors(owner, rows)
    argument = f"--parent={owner}"
    started = rows[owner].key.started if owner in rows else 0.0
    found = []
    for row in rows.values():
        if row.pid in below or row.pid in above or row.dead or row.key.started < started:
            continue
        tagged = tag is not None and environment_value(row.pid, TAG) == tag
        if tagged or argument in command(row.pid):
            found.append(row)
    return found


def ancestors(pid: int, rows: dict[int, Proc] | None = None) -> set[int]:
    """The pids of its parent, of that one's parent, and so on. rows: `table()` if None."""
    line: set[int] = set()
    rows = table() if rows is None else rows
    while pid in rows and rows[pid].parent not in line:
        pid = rows[pid].parent
        line.add(pid)
    return line


def cpu_seconds(pid: int) -> float | None:
    """CPU time that a process itself has used, seconds (user + system), or None if it is gone."""
    if _LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
        except (OSError, IndexError, ValueError):
            return None
    seconds: float | None = _from_psutil(pid, lambda process: sum(process.cpu_times()[:2]), None)
    return seconds


def memory(pid: int) -> tuple[int, int] | None:
    """(USS, RSS) of a process in bytes, or None if it is gone or another user's.

    USS is what would be free if it ended; a forked worker shares the rest with its sidecar.
    """
    return _from_psutil(pid, _uss_and_rss, None)


def _uss_and_rss(process: object) -> tuple[int, int]:
    full = process.memory_full_info()  # type: ignore[attr-defined]
    return int(full.uss), int(full.rss)


def _from_psutil(pid: int, read: Callable[..., T], otherwise: T) -> T:
    import psutil

    try:
        return read(psutil.Process(pid))
    except (psutil.Error, OSError):
        return otherwise


def wait_gone(keys: Iterable[ProcessKey], timeout: float) -> list[ProcessKey]:
    """Wait until all of these have ended. timeout: seconds. Returns those still running then."""
    deadline = Genuine.monotonic() + timeout
    pause = 0.001
    left = [key for key in keys if alive(key)]
    while left and Genuine.monotonic() < deadline:
        Genuine.sleep(min(pause, max(0.0, deadline - Genuine.monotonic())))
        pause = min(pause * 2, 0.02)
        left = [key for key in left if alive(key)]
    return left
