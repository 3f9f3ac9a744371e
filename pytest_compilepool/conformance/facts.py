# SPDX-License-Identifier: Apache-2.0
"""What a cell tells of the pool that was tried, beside the verdicts: asked once, in an interpreter of its own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pytest_compilepool import sessionrecord
from pytest_compilepool.conformance.interpreters import import_path, run_interpreter
from pytest_compilepool.conformance.order import ANSWER, LOG, ORDER
from pytest_compilepool.conformance.subjects import load
from pytest_compilepool.fresh.ending import die_with

SECONDS = 120.0
"""For all of it: torch is imported, and a pool is warmed, quiesced and shut down."""

_BOOT = (
    "import json, pathlib, sys; "
    "order = json.loads(pathlib.Path(sys.argv[1], 'order.json').read_text(encoding='utf-8')); "
    "sys.path[:] = order['path']; from pytest_compilepool.conformance import facts; "
    "facts.answer(sys.argv[1], int(sys.argv[2]), order)"
)


def ask(spec: str) -> tuple[dict[str, Any], dict[str, float], str]:
    """The pool's `facts`, its `timings` (seconds by step), and why one of them could not be had, or an empty text.

    spec: `module:Class`. Raises nothing for what that class does.
    """
    with tempfile.TemporaryDirectory(
        prefix=sessionrecord.folder_prefix(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        (folder / ORDER).write_text(json.dumps({"path": import_path(), "spec": spec}), encoding="utf-8")
        status = run_interpreter(_BOOT, folder, SECONDS)
        try:
            told = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            how = f"within {SECONDS:g} s" if status is None else f"and ended with status {status}"
            return {}, {}, f"it gave no answer {how}: {(said or ['it said nothing'])[-1]}"
    return told["facts"], told["timings"], told["missing"]


def answer(folder: str, parent: int, order: dict[str, Any]) -> None:
    """In the fresh interpreter: answer into the folder, the facts before the timings are taken.

    parent: pid of who waits for it.
    """
    die_with(parent)
    told: dict[str, Any] = {"facts": {}, "timings": {}, "missing": ""}
    try:
        pool = load(order["spec"])()
        told["facts"] = dict(pool.facts())
        _write(folder, told)
        told["timings"] = {str(name): float(value) for name, value in pool.timings().items()}
    except Exception as error:
        told["missing"] = f"{type(error).__name__}: {error}"
    _write(folder, told)
    # What the class has started, a thread or a process, is not waited for.
    os._exit(0)


def _write(folder: str, told: dict[str, Any]) -> None:
    part = Path(folder, f"{ANSWER}.part")
    part.write_text(json.dumps(told, default=str), encoding="utf-8")
    part.replace(Path(folder, ANSWER))
