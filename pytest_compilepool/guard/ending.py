# SPDX-License-Identifier: Apache-2.0
"""What a process of a session has left behind, and the end of it: by the marks that its descendants carry."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree, sessionrecord
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.leaks import reaper
from pytest_compilepool.proctree import Proc
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.sessionrecord import Owner

_ROUNDS = 3  # what forks while it is ended is found in the next
_TOLD = 100  # processes that are told of one by one
_WORKER = "torch/_inductor/compile_worker/__main__.py"  # what torch runs as a sidecar

# Removed while a worker that is killed compiles in it, such a folder is made anew by its compiler: not with mode 0700.
_PRIMING = re.compile(r"compilepool-[0-9]+-prime-([0-9]+-)?[0-9a-f]{8}-[a-z0-9_]{8}")

# The whole of what `sessionrecord.folder_prefix` and `tempfile` make of it: a user's own names look much the same.
_FOLDER = re.compile(
    r"compilepool-([1-9][0-9]{0,9})-(?:(?:bench|shared|vllm|prime|prime-[0-9]+)-)?([0-9a-f]{8})-[a-z0-9_]{8}"
)


def end(owner: dict[str, Any], record: str, finished: bool) -> None:
    """End what a process has left, and write that down in its record.

    owner: as `sessionrecord.Owner` has it; record: a path, or "" where there is none; finished: whether its session has
    ended as it should, so that only pools are left to be ended: what else there is somebody has allowed.
    """
    who = sessionrecord.parsed_owner(owner)
    if who is None:
        return
    ended, left = end_processes(who, pools_only=finished)
    path = Path(record)
    if not finished:
        remove_folders(who)
    elif not left and record:
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        account = sessionrecord.read_account(path)
        died = {
            "test": account.running,
            "attempt": account.attempt,
            "at": round(time.time(), 3),
            "ended": ended[:_TOLD],
            "left": [str(key) for key in left][:_TOLD],
        }
        sessionrecord.note_death(path, died)


def end_processes(owner: Owner, pools_only: bool = False) -> tuple[list[str], list[ProcessKey]]:
    """End all that `left_by` finds, or of these only pools. Returns their command lines, and those that are still there.

    Those of a compile pool are killed: there is nobody for whom they could finish. Others are asked first.
    """
    ended: list[str] = []
    left: list[ProcessKey] = []
    for _ in range(_ROUNDS):
        found = [row for row in left_by(owner) if not pools_only or is_of_parent(row.pid, owner.pid)]
        if not found:
            break
        ended += [_described(row) for row in found]
        pool = [row.key for row in found if _is_of_a_pool(row)]
        others = [row.key for row in found if row.key not in pool]
        left = [*reaper.reap(pool, 0.0, 1.0), *reaper.reap(others, 0.7, 1.0)]
    return ended, [key for key in left if proctree.alive(key)]


def left_by(owner: Owner) -> list[Proc]:
    """Processes of this user that the owner has left: by tag, mark, or the sidecar's `--parent`.

    The owner must have ended: while it runs these are its own.
    """
    if owner.is_foreign or owner.boot != sessionrecord.boot_id():
        return []  # they are elsewhere, or ended with the machine
    rows = proctree.table()
    spared = {Genuine.getpid(), owner.pid} | _ancestors(rows)
    # A pid is used again one day: whoever has it now, what is younger than that one is its own.
    now = rows.get(owner.pid)
    until = now.key.started if now is not None and now.key != owner.key else float("inf")
    return [
        row
        for row in rows.values()
        if row.pid not in spared
        and not row.dead
        and owner.started <= row.key.started
        and is_mine(row.pid)
        and (_carries(row.pid, owner) or (row.key.started < until and is_of_parent(row.pid, owner.pid)))
    ]


def pools_of(parent: int) -> list[Proc]:
    """Sidecars and workers of a process that runs."""
    rows = proctree.descendants(parent)
    return [row for row in rows if not row.dead and is_of_parent(row.pid, parent)]


def is_mine(pid: int) -> bool:
    """Whether that process is this user's, and in the same pid namespace: in another, `--parent` names another process."""
    try:
        mine = os.readlink("/proc/self/ns/pid") == os.readlink(f"/proc/{pid}/ns/pid")
        return mine and os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False


def is_of_parent(pid: int, parent: int) -> bool:
    """Whether it is a sidecar that this parent has started, or one of its workers, which share the command line."""
    command = proctree.command(pid)
    return f"--parent={parent}" in command and _is_a_worker(command)


def parent_of_pool(pid: int) -> int | None:
    """Whose sidecar or worker that process is, by its command line; None if it is none."""
    command = proctree.command(pid)
    if not _is_a_worker(command):
        return None
    parents = [part.partition("=")[2] for part in command if part.startswith("--parent=")]
    return int(parents[0]) if parents and parents[0].isdecimal() and len(parents[0]) < 10 else None


def _is_a_worker(command: list[str]) -> bool:
    """Whether one of these is torch's script: somebody else's program may have the words in its name."""
    return any(f"/{part}".endswith(f"/{_WORKER}") for part in command)


def _carries(pid: int, owner: Owner) -> bool:
    if owner.tag and proctree.is_tagged(pid, owner.tag):
        return True
    return bool(owner.mark) and _holds(pid, owner.mark)


def _holds(pid: int, mark: str) -> bool:
    """Whether it has the memory file of that name open: a fork that has executed nothing since."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(f"{folder}/{name}").startswith(f"/memfd:{mark}"):
                return True
    return False


def _is_of_a_pool(row: Proc) -> bool:
    return parent_of_pool(row.pid) is not None


def _ancestors(rows: dict[int, Proc]) -> set[int]:
    found: set[int] = set()
    pid = Genuine.getpid()
    while pid in rows and pid not in found:
        found.add(pid)
        pid = rows[pid].parent
    return found


def _described(row: Proc) -> str:
    return f"pid {row.pid} {' '.join(proctree.command(row.pid))[:200] or row.name}"


def folders_of(owner: Owner) -> list[Path]:
    """Its temporary folders, by the whole of their names, of this user's own; see `_private`.

    The mark in the name is that of its own start of the machine and pid namespace. None where another process has that
    pid now: they could be that one's.
    """
    now = proctree.lookup(owner.pid)
    taken = now is not None and not now.dead and now.key != owner.key
    if not os.path.isabs(owner.temporary) or owner.is_foreign or taken:
        return []
    found = []
    whose = (owner.pid, sessionrecord.folder_mark(owner.boot, owner.namespace))
    for path in _glob(Path(owner.temporary), f"compilepool-{owner.pid}-*"):
        seen = _private(path)
        if _whose(path) == whose and seen is not None and seen.st_mtime >= owner.at - 1.0:
            found.append(path)
    return found


def folders_without_owner() -> dict[int, list[Path]]:
    """Those of processes that have gone, by pid: of commands that were killed, which keep no record.

    Only of this start of the machine and this pid namespace: what has become of a pid of another cannot be seen here.
    """
    found: dict[int, list[Path]] = {}
    boot, namespace = sessionrecord.boot_id(), sessionrecord.pid_namespace()
    if not (boot and namespace):
        return found
    here = sessionrecord.folder_mark(boot, namespace)
    for path in _glob(Path(tempfile.gettempdir()), "compilepool-*-*"):
        pid, mark = _whose(path)
        if mark == here and proctree.lookup(pid) is None and _private(path) is not None:
            found.setdefault(pid, []).append(path)
    return found


def _whose(path: Path) -> tuple[int, str]:
    """Pid and mark in the name of a folder; 0 and "" where none of ours has that name."""
    match = _FOLDER.fullmatch(path.name)
    return (int(match[1]), match[2]) if match else (0, "")


def _private(path: Path) -> os.stat_result | None:
    """What is known of a folder that this user's own processes made, nobody else can write to, and a user hardly did.

    By its mode, which is 0700 as `tempfile` gives it, or by the whole of its name. None for anything else.
    """
    with contextlib.suppress(OSError):
        seen = path.lstat()
        open_to_others = 0o022 if _PRIMING.fullmatch(path.name) else 0o077
        if stat.S_ISDIR(seen.st_mode) and not seen.st_mode & open_to_others and seen.st_uid == os.geteuid():
            return seen
    return None


def _glob(folder: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def remove_folders(owner: Owner) -> list[Path]:
    """Remove them; `rmtree` follows no link. Returns those that were there."""
    found = folders_of(owner)
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return found
