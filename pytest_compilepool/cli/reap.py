# SPDX-License-Identifier: Apache-2.0
"""`compilepool reap`: what earlier sessions have left on this machine, listed, and ended where somebody says so."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_compilepool import exclusive, places, proctree, sessionrecord
from pytest_compilepool.cli.refusal import Refused
from pytest_compilepool.guard import ending
from pytest_compilepool.leaks import reaper
from pytest_compilepool.proctree import Proc
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.sessionrecord import Account
from pytest_compilepool.words import counted

LEFT = 1
"""Exit status where something is left that was not ended."""


@dataclass
class Find:
    """One session that has gone. account: its record, None where only processes tell of it; parent: its pid;
    processes, folders: what it has left."""

    parent: int
    account: Account | None = None
    record: Path | None = None
    processes: list[Proc] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left of it but its record."""
        return not (self.processes or self.folders)


@dataclass
class Ended:
    """What `--yes`, or a yes, has done: how many of each; left: processes that are still there."""

    processes: int = 0
    folders: int = 0
    records: int = 0
    left: list[ProcessKey] = field(default_factory=list)


@dataclass
class Survey:
    """Everything that was found.

    living: sessions that run; foreign: of other machines or containers; others: processes of other users that look the
    same; refused: records that are not used.
    """

    finds: list[Find] = field(default_factory=list)
    living: int = 0
    foreign: int = 0
    others: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = f"{parser.prog} [OPTION ...]"
    parser.epilog = "Example: compilepool reap --json"
    parser.add_argument(
        "--yes", action="store_true", help="end what is found and remove its records, without asking"
    )
    parser.add_argument("--json", action="store_true", help="list it as JSON, and end nothing without --yes")


def run(arguments: argparse.Namespace) -> int:
    """List, ask, end. Returns 0 where nothing is left."""
    try:
        folder = places.own_folder()
    except places.PlaceError as error:
        raise Refused(str(error)) from None
    found = survey(folder)
    if not arguments.json:
        print("\n".join(as_text(found)))
    clean = all(one.is_clean for one in found.finds)
    ended = None
    if found.finds and (arguments.yes or (not (clean or arguments.json) and _agreed(found))):
        ended = end_all(found)
    exclusive.sweep(folder)
    with contextlib.suppress(OSError):
        sessionrecord.remove_if_empty(folder)
    if arguments.json:
        print(json.dumps(as_json(found, ended), indent=1))
    elif ended is not None:
        print(_done(ended))
    elif found.finds and clean:
        print("no process and no folder is left; --yes removes the records")
    if ended is None:
        return 0 if clean else LEFT
    for key in ended.left:
        print(f"compilepool reap: {key} is still there after SIGKILL: the kernel holds it", file=sys.stderr)
    return LEFT if ended.left else 0


def end_all(found: Survey) -> Ended:
    """End what every one of these sessions has left."""
    done = Ended()
    for one in found.finds:
        left = end(one)
        done.left += left
        done.processes += len(one.processes) - len(left)
        done.folders += sum(not path.exists() for path in one.folders)
        done.records += one.record is not None and not one.record.exists()
    return done


def _done(ended: Ended) -> str:
    return (
        f"ended {counted(ended.processes, 'process', 'processes')}, removed {counted(ended.folders, 'folder')} "
        f"and {counted(ended.records, 'record')}"
    )


def survey(folder: Path) -> Survey:
    """Look at all records of this user, and at all processes that look like a pool's. folder: `places.own_folder()`."""
    found = Survey()
    for path in sessionrecord.records(folder):
        try:
            account = sessionrecord.read_account(path)
        except places.PlaceError as error:
            if path.is_symlink() or path.exists():  # else its session has just ended as it should
                found.refused.append(str(error))
            continue
        if not account.owner.is_gone:
            found.living += account.owner.is_alive
            found.foreign += account.owner.is_foreign
            continue
        processes = ending.left_by(account.owner)
        found.finds.append(
            Find(account.owner.pid, account, path, processes, ending.folders_of(account.owner))
        )
    _add_strangers(found)
    _add_folders(found)
    return found


def _add_strangers(found: Survey) -> None:
    """Pools whose parent has gone and left no record: of a session that was told not to, or of no session at all."""
    rows = proctree.table()
    known = {row.key for one in found.finds for row in one.processes}
    by_parent: dict[int, Find] = {}
    for row in rows.values():
        parent = None if row.dead or row.key in known else ending.parent_of_pool(row.pid)
        if parent is None:
            continue
        now = rows.get(parent)
        if now is not None and not now.dead and now.key.started <= row.key.started:
            continue  # it lives
        if not ending.is_mine(row.pid):
            found.others.append(row.pid)
            continue
        by_parent.setdefault(parent, Find(parent)).processes.append(row)
    found.finds += by_parent.values()


def _add_folders(found: Survey) -> None:
    """Folders whose process has gone and left no record: a command that was killed."""
    known = {path for one in found.finds for path in one.folders}
    by_parent = {one.parent: one for one in found.finds if one.account is None}
    for pid, paths in ending.folders_without_owner().items():
        left = [path for path in paths if path not in known]
        if left and pid not in by_parent:
            by_parent[pid] = Find(pid)
            found.finds.append(by_parent[pid])
        if left:
            by_parent[pid].folders += left


def end(find: Find) -> list[ProcessKey]:
    """End what one session has left, and forget it. Returns the keys of what is still there."""
    if find.account is None:
        left = reaper.reap([row.key for row in find.processes], 0.0)
        for path in find.folders:
            shutil.rmtree(path, ignore_errors=True)
        return left
    _, left = ending.end_processes(find.account.owner)
    ending.remove_folders(find.account.owner)
    if not left and find.record is not None:
        with contextlib.suppress(OSError):
            find.record.unlink()
    return left


def _agreed(found: Survey) -> bool:
    if not sys.stdin.isatty():
        print("nothing was ended, since there is no terminal to ask at: --yes ends it")
        return False
    print("End all of this? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def as_text(found: Survey) -> list[str]:
    """For a terminal."""
    lines = []
    for one in found.finds:
        lines.append(_headline(one))
        lines += [f"  process {_process(row)}" for row in one.processes]
        lines += [f"  folder  {_printable(path)}" for path in one.folders]
        if one.is_clean:
            lines.append("  nothing of it is left but its record")
    if found.others:
        pids = ", ".join(map(str, found.others))
        lines.append(f"not this user's, and left alone: workers of pools without a parent, pid {pids}")
    lines += map(_printable, found.refused)
    if found.living:
        lines.append(f"{counted(found.living, 'session is', 'sessions are')} running, and left alone")
    if found.foreign:
        lines.append(
            f"{counted(found.foreign, 'session is', 'sessions are')} of other machines or containers, and left alone"
        )
    return lines or ["nothing is left of earlier sessions"]


def _headline(one: Find) -> str:
    if one.account is None:
        had = "had a compile pool and " if one.processes else ""
        return f"pid {one.parent}, which has gone, {had}left no record:"
    owner = one.account.owner
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.at)) if owner.at else "some day"
    where = f" {_printable(owner.worker)}" if owner.worker else ""
    test = one.account.running or one.account.died.get("test")
    said = f"ended in {_printable(test)}" if test else "ended between two tests"
    again = f" (attempt {one.account.attempt})" if one.account.attempt > 1 else ""
    ended = one.account.died.get("ended")
    done = ""
    if isinstance(ended, list) and ended:
        done = f"; {counted(len(ended), 'process', 'processes')} still there then, and ended"
    return f"session pid {owner.pid}{where} in {_printable(owner.root)}, begun {when}, {said}{again}{done}:"


def _process(row: Proc) -> str:
    command = " ".join(proctree.command(row.pid))
    return f"pid {row.pid} {_printable(command[:160] or row.name)}"


def _printable(value: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def as_json(found: Survey, ended: Ended | None) -> dict[str, Any]:
    """The same as plain values. ended: what was done about it, None where nothing was."""
    return {
        "sessions": [
            {
                "pid": one.parent,
                "root": "" if one.account is None else one.account.owner.root,
                "worker": "" if one.account is None else one.account.owner.worker,
                "test": "" if one.account is None else one.account.running,
                "attempt": 1 if one.account is None else one.account.attempt,
                "begun": None if one.account is None else one.account.owner.at,
                "ended_then": [] if one.account is None else one.account.died.get("ended", []),
                "processes": [
                    {"pid": row.pid, "command": proctree.command(row.pid)} for row in one.processes
                ],
                "folders": [str(path) for path in one.folders],
            }
            for one in found.finds
        ],
        "running": found.living,
        "foreign": found.foreign,
        "others": found.others,
        "refused": found.refused,
        "ended": None if ended is None else {**asdict(ended), "left": [key.pid for key in ended.left]},
    }
