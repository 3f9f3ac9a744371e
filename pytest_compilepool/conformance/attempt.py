# SPDX-License-Identifier: Apache-2.0
"""One attempt at a scenario, in the interpreter that it runs in: what it raises is what came of it."""

from __future__ import annotations

import contextlib
import importlib
import os
import traceback
from collections.abc import Callable
from typing import Any

from pytest_compilepool.conformance.bench import Bench, Unanswered
from pytest_compilepool.conformance.order import Order


def told_of(status: str, text: str, bench: Bench | None) -> dict[str, Any]:
    """What whoever asked is told."""
    notes, counters = ([], {}) if bench is None else (bench.notes, bench.counters)
    return {"status": status, "text": text, "notes": notes, "counters": counters}


def try_it(order: Order, make: Callable[[], Bench]) -> tuple[str, str, Bench | None]:
    """Try its scenario; status, text, and the bench where there was one. make: gives that."""
    bench: Bench | None = None
    me = os.getpid()
    try:
        scenario: Any = getattr(importlib.import_module(order.module), order.function)
        scenario = getattr(scenario, "scenario", scenario)
        bench = make()
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
