# SPDX-License-Identifier: Apache-2.0
"""The interpreter in which a scenario runs: reads its order, tries it, writes what came of it, and is gone."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path

from pytest_compilepool.conformance import jointchild
from pytest_compilepool.conformance.attempt import told_of, try_it
from pytest_compilepool.conformance.bench import Bench
from pytest_compilepool.conformance.order import ANSWER, ORDER, STACKS, Order
from pytest_compilepool.conformance.subjects import load
from pytest_compilepool.conformance.twin import arm, disarm
from pytest_compilepool.fresh.ending import die_with
from pytest_compilepool.leaks.processes import adopt_orphans


def main(folder: str, parent: int) -> None:
    """Do what the order in that folder says. Returns only where the interpreter is to end by itself, `normally`.

    parent: pid of who has asked; nothing is done for one that is gone.
    """
    die_with(parent)
    _like_any_other()
    place = Path(folder)
    order = Order(**json.loads((place / ORDER).read_text(encoding="utf-8")))
    if order.joint:
        adopt_orphans()
        change(order)
        jointchild.serve(order, place)
    stacks = open(place / STACKS, "w", encoding="utf-8")  # noqa: SIM115 (open until the end)
    arm(order.limit, stacks)
    # What loses its parent comes to this process, and is seen here.
    adopt_orphans()
    change(order)
    status, text, bench = try_it(order, lambda: Bench(load(order.requirements)(), order, place))
    part = place / f"{ANSWER}.{os.getpid()}"
    part.write_text(json.dumps(told_of(status, text, bench)), encoding="utf-8")
    part.replace(place / ANSWER)
    if order.normally and status == "PASS":
        disarm()
        stacks.close()
        return
    # Not by way of atexit: what a pool does there is a feature of its own, and may take for ever.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(order.normally))


def _like_any_other() -> None:
    """What whoever started the suite ignores or blocks, or what has ended, is not to matter to the pool.

    A shell ignores SIGINT for what it runs in the background, and an ignored signal is inherited.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def change(order: Order) -> None:
    """Let the mutant of the order, if it has one, change the pool of this process."""
    if order.mutant:
        module, _, name = order.mutant.partition(":")
        getattr(importlib.import_module(module), name)("parent")
