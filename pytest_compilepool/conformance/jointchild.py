# SPDX-License-Identifier: Apache-2.0
"""In an interpreter that several features share: one pool, of which each of them gets new workers, one after the other.

It is for those that use the default pool and leave it as it was. Whatever else happens in here, it says so and is gone: a
next feature is to find nothing of an earlier one.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pytest_compilepool import proctree
from pytest_compilepool.conformance.attempt import told_of, try_it
from pytest_compilepool.conformance.bench import BOUND, Bench
from pytest_compilepool.conformance.link import Link
from pytest_compilepool.conformance.order import STACKS, Order
from pytest_compilepool.conformance.subjects import load
from pytest_compilepool.conformance.traces import difference, moving, traces
from pytest_compilepool.conformance.twin import arm, disarm
from pytest_compilepool.records import ProcessKey

PROCESSES = 2
SETTLE = 1.5
"""Seconds in which what a feature has used comes to rest: threads that are about to end, workers that go."""


def serve(order: Order, home: Path) -> NoReturn:
    """Try what comes through the socket that the order names, until one has failed or has left something, or nobody is
    there any more. home: folder of this interpreter.

    To each order there are up to three answers: `ready`, an empty text or why there is no pool for it; `told`, as
    `attempt.told_of` has it; `left`, an empty text or what it has left.
    """
    try:
        link = Link.to(order.joint)
        joint = _Joint(order, home)
        while True:
            told = link.receive(None)
            if not _one(link, joint, Order(**told["order"]), Path(told["folder"])):
                break
    except (EOFError, OSError):
        pass  # whoever asked has gone
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _one(link: Link, joint: _Joint, order: Order, folder: Path) -> bool:
    """Try one. Returns whether another may follow."""
    why = _said(joint.prepare)
    link.send(ready=why)
    if why:
        return False
    with open(folder / STACKS, "w", encoding="utf-8") as stacks:
        arm(order.limit, stacks)
        status, text, bench = try_it(order, lambda: joint.bench(order, folder))
        disarm()
    link.send(told=told_of(status, text, bench))
    if status != "PASS":
        return False
    left = _said(lambda: joint.left_by(folder))
    link.send(left=left)
    return not left


def _said(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


class _Joint:
    """The pool, and what it and this process were like before a feature had them."""

    def __init__(self, order: Order, home: Path) -> None:
        self._requirements = load(order.requirements)()
        # It plants the mutant, if there is one, before there is a pool.
        self._bench = Bench(self._requirements, order, home)
        self._workers: set[ProcessKey] = set()
        self._sidecar: ProcessKey | None = None
        self._before: dict[str, Any] = {}
        self._others: set[ProcessKey] = set()

    def bench(self, order: Order, folder: Path) -> Bench:
        """What a feature works with."""
        # What it does to its requirements is its own, too.
        return GuestBench(copy.copy(self._requirements), order, folder, self._bench.pool)

    def prepare(self) -> str:
        """Have a pool with as many workers as were asked for, none of which anybody has had. Returns what is wrong."""
        bench = self._bench
        if not bench.started:
            bench.ready(PROCESSES)
        else:
            bench.pool.wakeup()
        bench.until(lambda: len(bench.workers()) >= PROCESSES, BOUND, f"there are {PROCESSES} workers")
        workers = set(bench.workers())
        if len(workers) != PROCESSES or workers & self._workers:
            return f"the workers {sorted(key.pid for key in workers)} are not {PROCESSES} new ones"
        self._workers |= workers
        if self._sidecar is None:
            row = proctree.lookup(bench.sidecar)
            self._sidecar = None if row is None else row.key
            self._others = set(bench.tree()) - workers
            self._before = self._traces()
        return "" if self._is_the_same() else "the sidecar is another one"

    def left_by(self, folder: Path) -> str:
        """Let the workers go. Returns what a feature has left that the next one would find."""
        bench = self._bench
        if not self._is_the_same():
            return "the sidecar is another one, or has ended"
        if not _within(SETTLE, lambda: not bench.requirements.pending(bench.pool)):
            return f"{bench.requirements.pending(bench.pool)} jobs are pending"
        if not bench.requirements.offered():
            return "the pool is not offered any more"
        self._workers |= set(bench.workers())
        bench.pool.quiesce()
        if not _within(SETTLE, lambda: set(self._below()) == self._others):
            return f"processes are left, or lack: {set(self._below()) ^ self._others}"
        found = next((name for name, one in list(sys.modules.items()) if _is_in(one, folder)), None)
        if found is not None:
            return f"the module {found} of its folder is imported"
        # Of those some may just be on their way out.
        _within(SETTLE, lambda: all(self._before[name] == now for name, now in moving().items()))
        return difference(self._before, self._traces())

    def _is_the_same(self) -> bool:
        row = proctree.lookup(self._bench.sidecar)
        return row is not None and not row.dead and row.key == self._sidecar

    def _below(self) -> list[ProcessKey]:
        """Everything below this process, the dead ones that nobody has waited for included."""
        return [row.key for row in proctree.descendants(os.getpid())]

    def _traces(self) -> dict[str, Any]:
        return traces(self._requirements.state())


class NotShared(AssertionError):
    """A feature that is declared to share asks for what an interpreter of its own has only."""


class GuestBench(Bench):
    """For a feature that shares. pool: the one that it gets, whichever way it asks for one."""

    def __init__(self, requirements: Any, order: Order, folder: Path, pool: Any) -> None:
        super().__init__(requirements, replace(order, mutant=""), folder)
        self._common = pool

    def start(self, processes: int = PROCESSES, idle_seconds: float | None = None) -> Any:
        """The pool that is there."""
        if (processes, idle_seconds) != (PROCESSES, None) or self.started:
            raise NotShared(
                "a feature with share = true uses one pool of two workers without a timer, made once"
            )
        self._pool = self._common
        return self._pool

    def use(self, pool: Any) -> None:
        """Not here."""
        raise NotShared("a feature with share = true goes on with no other pool")

    def inject(self, **faults: object) -> None:
        """Not here."""
        raise NotShared("a feature with share = true plants no fault: its sidecar is there already")

    def other(self, *arguments: Any, **named: Any) -> Any:
        """Not here."""
        raise NotShared("a feature with share = true starts no other interpreter")


def _is_in(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(folder)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes to be so in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
