# SPDX-License-Identifier: Apache-2.0
"""The interpreter in which a scenario runs: reads its order, tries it, writes what came of it, and is gone."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from pytest_compilepool.conformance.bench import Bench, Unanswered
from pytest_compilepool.conformance.order import ANSWER, ORDER, STACKS, Order
from pytest_compilepool.conformance.subjects import load
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
    stacks = open(place / STACKS, "w", encoding="utf-8")  # noqa: SIM115 (open until the end)
    faulthandler.dump_traceback_later(order.limit, exit=True, file=stacks)
    # What loses its parent comes to this process, and is seen here.
    adopt_orphans()
    change(order)
    status, text, bench = _try(order, place)
    part = place / f"{ANSWER}.{os.getpid()}"
    part.write_text(json.dumps(_told(status, text, bench)), encoding="utf-8")
    part.replace(place / ANSWER)
    if order.normally and status == "PASS":
        faulthandler.cancel_dump_traceback_later()
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


def _told(status: str, text: str, bench: Bench | None) -> dict[str, Any]:
    notes, counters = ([], {}) if bench is None else (bench.notes, bench.counters)
    return {"status": status, "text": text, "notes": notes, "counters": counters}


def _try(order: Order, folder: Path) -> tuple[str, str, Bench | None]:
    bench: Bench | None = None
    me = os.getpid()
    try:
        scenario: Any = getattr(importlib.import_module(order.module), order.function)
        scenario = getattr(scenario, "scenario", scenario)
        bench = Bench(load(order.requirements)(), order, folder)
        scenario(bench, **(order.arguments or {}))
        status, text = "PASS", ""
    except Unanswered as error:
        status, text = "TIMEOUT", str(error)
    except AssertionError as error:
        status, text = "FAIL", _text(error)
    except BaseException as error:
        status, text = "FAIL", f"{type(error).__name__}: {error}\n{traceback.format_exc()[-6000:]}"
    if os.getpid() != me:
        os._exit(1)  # of a fork: the answer is its parent's
    if status != "PASS" and bench is not None:
        with contextlib.suppress(Exception):
            text = f"{text}\n{bench.describe()}".rstrip("\n")
    if bench is not None and bench.started and bench.unharmed:
        # Whatever was seen, it was not what the scenario is about.
        status, text = "SKIP", bench.unharmed
    return status, text, bench


def _text(error: AssertionError) -> str:
    """Its text; the line itself where it has none."""
    if str(error):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.line} ({os.path.basename(last.filename)}:{last.lineno})"
