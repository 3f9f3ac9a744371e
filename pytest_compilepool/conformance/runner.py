# SPDX-License-Identifier: Apache-2.0
"""Trying one feature: a fresh interpreter, an outer deadline, and nothing of it left afterwards."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from pathlib import Path

from pytest_compilepool import sessionrecord
from pytest_compilepool.conformance.forks import ForkServer
from pytest_compilepool.conformance.interpreters import import_path, run_interpreter
from pytest_compilepool.conformance.joint import Joint
from pytest_compilepool.conformance.manifest import Feature
from pytest_compilepool.conformance.order import ANSWER, BOOT, LOG, STACKS, Order, write_order
from pytest_compilepool.conformance.verdict import Verdict

SPARE = 5.0
"""Seconds beyond its limit after which an interpreter is ended from outside: by then it has told where it stood."""

_TAIL = 4000
_SHOWN = 500


def run_feature(
    feature: Feature,
    module: str,
    function: str,
    requirements: str,
    mutant: str = "",
    stop: threading.Event | None = None,
    forks: ForkServer | None = None,
    shared: str = "",
    joint: Joint | None = None,
) -> Verdict:
    """Try it. Returns what came of it; nothing of the interpreter is left, neither process nor file.

    forks: where its interpreter comes from, if that can be used; else a new one is started. stop: set where nobody wants
    to know any more; the interpreter is ended then, and the verdict means nothing. shared: see `Order`. joint: where it may
    share an interpreter with others, that one. It is called kept there, or is tried in an interpreter of its own: whatever
    else came of it there may have come from another feature.
    """
    if stop is not None and stop.is_set():
        return Verdict(feature.id, "SKIP", "nobody wants to know any more")
    order = Order(
        feature.id, module, function, requirements, import_path(), feature.limit, mutant, shared=shared
    )
    found = joint.attempt(order, stop) if joint is not None and feature.share else None
    if found is not None and found.status == "PASS":
        return found
    verdict = _alone(order, stop, forks)
    if found is not None:
        # It is not to be lost that it was not always so.
        verdict.notes.append(f"{found.status} beside other features: {found.text.strip()[:_SHOWN]}")
    return verdict


def _alone(order: Order, stop: threading.Event | None, forks: ForkServer | None) -> Verdict:
    with tempfile.TemporaryDirectory(
        prefix=sessionrecord.folder_prefix(), ignore_cleanup_errors=True
    ) as name:
        return _run(order, Path(name), stop, forks)


def _run(order: Order, folder: Path, stop: threading.Event | None, forks: ForkServer | None) -> Verdict:
    write_order(order, folder)
    # A server that must be started first takes its time of nobody's limit.
    server = forks if forks is not None and forks.usable() else None
    began = time.monotonic()
    seconds = order.limit + SPARE
    code = server.run(folder, seconds, stop) if server else run_interpreter(BOOT, folder, seconds, stop)
    verdict = _verdict(order, folder, code)
    verdict.seconds = round(time.monotonic() - began, 2)
    return verdict


def _verdict(order: Order, folder: Path, code: int | None) -> Verdict:
    try:
        told = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        return Verdict(order.feature, told["status"], told["text"], told["notes"], told["counters"])
    except (OSError, ValueError):
        pass
    stacks = _tail(folder / STACKS)
    if code is None or stacks:
        text = (
            f"the scenario was still at it after {order.limit:g} s and was ended; where it stood:\n{stacks}"
        )
        return Verdict(order.feature, "TIMEOUT", text)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return Verdict(
        order.feature, "CRASH", f"the interpreter {how} and gave no answer:\n{_tail(folder / LOG)}"
    )


def _tail(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    except OSError:
        return ""
