# SPDX-License-Identifier: Apache-2.0
"""Processes left behind: children, their children, and those that hide from the tree by forking twice."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.leaks import ourforks, reaper
from pytest_compilepool.leaks.base import LeakChecker, Owned
from pytest_compilepool.leaks.holders import process_holders
from pytest_compilepool.proctree import Proc
from pytest_compilepool.records import Leak, ProcessKey, Snapshot

_LINUX = sys.platform.startswith("linux")
_PR_SET_CHILD_SUBREAPER = 36  # from <linux/prctl.h>
_PR_GET_CHILD_SUBREAPER = 37

# Helpers of multiprocessing that live as long as the interpreter, by design, wherever in the tree that is.
# Each is started as `python ... -c "from multiprocessing.<module> import main; main(...)"`.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

_STATES = {"T": "stopped", "t": "traced", "D": "in the kernel", "R": "running", "S": "sleeping", "I": "idle"}


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent ends. Linux; elsewhere nothing happens.

    So a process that forked twice without an exec stays visible in the tree below this one. Returns what
    was set before, for `stop_adopting`.
    """
    previous = is_adopting()
    ourforks.watch()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return previous


def stop_adopting(previous: bool = False) -> None:
    """Undo `adopt_orphans`. previous: what that returned."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(previous))


def is_adopting() -> bool:
    """Whether orphans come to this process."""
    answer = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    return bool(answer.value)


def _prctl(option: int, argument: Any) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


class ProcessChecker(LeakChecker):
    """Descendants of this process, and strays: processes elsewhere that carry this session's marks.

    key: ProcessKey; value: the name. A zombie counts too. Passed over: what `Owned.processes` names and
    all below it, the resource tracker and the fork server of multiprocessing, and zombies that are ours only
    because of `adopt_orphans` (nobody here could have waited for them; this checker does).
    """

    name: ClassVar[str] = "processes"

    def __init__(self, owned: Owned) -> None:
        self._owned = owned
        # Memories that save work and never change a verdict: strangers that were read once, strays that were
        # found once, and below whom each process was first seen.
        self._strangers: dict[int, Proc] = {}
        self._strays: set[ProcessKey] = set()
        self._first_parent: dict[ProcessKey, int] = {}

    def measure(self) -> Snapshot:
        rows = proctree.table()
        children = proctree.by_parent(rows)
        me = Genuine.getpid()
        below = proctree.below(me, children)
        for stray in self._find_strays(me, rows, {row.pid for row in below}):
            below += [stray, *proctree.below(stray.pid, children)]
        passed = self._owned_pids(children)
        adopted = self._reap_adopted(me, below)
        return {row.key: row.name for row in below if row.pid not in passed and row.key not in adopted}

    def _find_strays(self, me: int, rows: dict[int, Proc], below: set[int]) -> list[Proc]:
        lineage = {me, *below, *proctree.ancestors(me, rows)}
        others = {pid: row for pid, row in rows.items() if pid not in lineage}
        # Reading a stranger's environment and command line is the dear part: it is done once for each, and
        # again only when it got another name or parent, as it does when it execs or is orphaned.
        unknown = {pid: row for pid, row in others.items() if not self._is_known(row)}
        found: set[ProcessKey] = set()
        if unknown:
            line = {pid: rows[pid] for pid in lineage if pid in rows}
            found = {row.key for row in proctree.strays(me, self._owned.tag, {**line, **unknown})}
        if found or self._strays:
            self._strays = {r.key for r in rows.values() if r.key in self._strays} | found
        strays = [row for row in others.values() if row.key in self._strays] if self._strays else []
        self._strangers = others
        for row in strays:
            del self._strangers[row.pid]
        # A dead stray is the zombie of whoever is its parent now.
        return [row for row in strays if not row.dead]

    def _is_known(self, row: Proc) -> bool:
        seen = self._strangers.get(row.pid)
        return seen is row or row.key in self._strays or (seen is not None and _face(seen) == _face(row))

    def _owned_pids(self, children: dict[int, list[Proc]]) -> set[int]:
        pids = self._owned.processes()
        return pids | {row.pid for pid in pids for row in proctree.below(pid, children)}

    def _reap_adopted(self, me: int, below: list[Proc]) -> set[ProcessKey]:
        """Wait for zombies that were born to somebody else. Returns who they were."""
        self._first_parent = {r.key: self._first_parent.get(r.key, r.parent) for r in below}
        adopted = {r.key for r in below if r.dead and r.parent == me and self._first_parent[r.key] != me}
        for key in adopted:
            reaper.wait_once(key.pid)
        return adopted

    def diff(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        leaks = super().diff(before, after)
        zombies = {leak.handle.pid for leak in leaks if leak.after.startswith("zombie")}
        strangers = _maybe_adopted(zombies)
        leaks = [leak for leak in leaks if leak.handle.pid not in strangers]
        survey = _Survey({leak.handle.pid for leak in leaks})
        return [dataclasses.replace(leak, handle=(leak.handle, survey)) for leak in leaks]

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak | None:
        assert isinstance(key, ProcessKey)
        row = proctree.lookup(key.pid)
        if row is None or row.key != key:
            return None  # it has ended since it was measured
        command = proctree.command(key.pid)
        if _is_helper_command(command):
            return None
        role = _role(row, command)
        what = f"{role} {key}" if role else f"{key} ({row.name})"
        if row.dead:
            after = f"zombie: {what} has ended and nobody has waited for it"
        else:
            after = f"{what}, {_STATES.get(row.state, row.state)}: {_short(command) or row.name}"
        who = f"child of {_parent_name(row)}"
        return Leak(self.name, role or row.name, "not there", after, who, _age(key), handle=key)

    def restore(self, leaks: Sequence[Leak]) -> None:
        """End those that are nobody's; a process whose object somebody still has stays, with all below it.

        Asked anew, for a pool that was closed since it was reported no longer keeps its processes.
        """
        keys = [leak.handle[0] for leak in leaks if proctree.lookup(leak.handle[0].pid) is not None]
        kept = _kept({key.pid for key in keys}) if keys else {}
        reaper.reap(key for key in keys if key.pid not in kept)

    def note(self, leak: Leak) -> str:
        if leak.handle is None:
            return ""
        key, survey = leak.handle
        return f"it is not ended: {survey.reasons[key.pid]}" if key.pid in survey.reasons else ""


class _Survey:
    """Why processes are not ended, told once for a set of leaks and only when somebody asks."""

    def __init__(self, pids: set[int]) -> None:
        self._pids = pids

    @functools.cached_property
    def reasons(self) -> dict[int, str]:
        """By pid; what is not in it is nobody's."""
        return _kept(self._pids)


def _kept(pids: set[int]) -> dict[int, str]:
    """Which of these processes somebody still uses, and why that is so."""
    holders = process_holders(pids)
    rows = proctree.table()
    found = {pid: f"somebody still has the {name} that stands for it" for pid, name in holders.items()}
    for pid in holders:
        for row in proctree.descendants(pid, rows):
            found.setdefault(row.pid, f"it is below pid {pid}, which somebody still uses")
    return found


def _face(row: Proc) -> tuple[ProcessKey, str, int]:
    return row.key, row.name, row.parent


def _is_helper_command(command: list[str]) -> bool:
    return any(part.startswith(f"from {module} import") for part in command for module in _HELPERS)


def _maybe_adopted(pids: set[int]) -> set[int]:
    """Those of these zombies that may be ours by adoption only, so that nobody can be blamed for them.

    A child of ours that somebody forgot to wait for is told by the object that stands for it, or by being a
    plain fork of this very process: same name, same session, begun while this process forked. Without adoption
    every zombie child is ours.
    """
    if not pids or not is_adopting():
        return set()
    me = proctree.lookup(Genuine.getpid())
    session = os.getsid(0)
    owners = reaper.child_owners(pids)
    found = set()
    for pid in pids - set(owners):
        row = proctree.lookup(pid)
        alike = row is not None and me is not None and row.name == me.name and _session(pid) == session
        plain_fork = alike and row is not None and ourforks.at(row.key.started)
        if row is not None and row.parent == Genuine.getpid() and not plain_fork:
            found.add(pid)
    return found


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _role(row: Proc, command: list[str]) -> str:
    """`sidecar` or `worker` for a process of a compile pool, else an empty text."""
    parent = next((part.partition("=")[2] for part in command if part.startswith("--parent=")), None)
    if parent is None or not any("compile_worker" in part for part in command):
        return ""
    # A worker is forked, so it carries the command line of its sidecar, whose parent is the one named there.
    # A sidecar whose parent is gone cannot be told from a worker, and is named like one that forks none.
    return "sidecar" if parent == str(row.parent) else "worker"


def _parent_name(row: Proc) -> str:
    if row.parent == Genuine.getpid():
        return "this process"
    parent = proctree.lookup(row.parent)
    return f"pid {row.parent}" if parent is None else f"pid {row.parent} ({parent.name})"


def _short(command: list[str], limit: int = 160) -> str:
    text = " ".join(command).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _age(key: ProcessKey) -> str:
    # Where /proc tells it, a start time counts from the boot of the machine.
    now = time.clock_gettime(time.CLOCK_BOOTTIME) if _LINUX else time.time()
    return f"it started {max(0.0, now - key.started):.1f} s ago"
