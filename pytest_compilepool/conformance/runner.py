# SPDX-License-Identifier: Apache-2.0
"""Trying one feature: a fresh interpreter, an outer deadline, and nothing of it left afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_compilepool import proctree
from pytest_compilepool.conformance.manifest import Feature
from pytest_compilepool.conformance.verdict import Verdict
from pytest_compilepool.fresh.ending import end_all

ORDER, ANSWER, LOG, STACKS = "order.json", "answer.json", "log.txt", "stacks.txt"

BOOT = (
    "import json, pathlib, sys; "
    "sys.path[:] = json.loads(pathlib.Path(sys.argv[1], 'order.json').read_text(encoding='utf-8'))['path']; "
    "from pytest_compilepool.conformance import child; child.main(sys.argv[1], int(sys.argv[2]))"
)
"""Arguments: its folder, and the pid of who asks. With the same import path as that one; no variable of the environment
is touched for it."""

SPARE = 5.0
"""Seconds beyond its limit after which an interpreter is ended from outside: by then it has told where it stood."""

_LOOK = 0.2  # seconds after which it is asked again whether anybody still wants to know
_TAIL = 4000
# Settings of whoever runs the suite would be settings of the pool that is tried.
_NOT_HANDED_ON = (
    *("PYTEST_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "TRITON_", "TORCH_", "COMPILEPOOL_"),
    # They change what an interpreter imports, or make a warning of torch's an error.
    *("PYTHONSAFEPATH", "PYTHONWARNINGS", "PYTHONDEVMODE"),
)


@dataclass(frozen=True)
class Order:
    """What an interpreter is to do. module, function: of the scenario; requirements: `module:Class`; mutant:
    `module:function` that changes the pool, or an empty text; path: import path; limit: seconds; normally: the
    interpreter ends as a program does that has run to its end, with all that a pool does then."""

    feature: str
    module: str
    function: str
    requirements: str
    path: list[str]
    limit: float
    mutant: str = ""
    arguments: dict[str, str] | None = None
    normally: bool = False


def run_feature(
    feature: Feature,
    module: str,
    function: str,
    requirements: str,
    mutant: str = "",
    stop: threading.Event | None = None,
) -> Verdict:
    """Try it. Returns what came of it; nothing of the interpreter is left, neither process nor file.

    stop: set where nobody wants to know any more; the interpreter is ended then, and the verdict means nothing.
    """
    if stop is not None and stop.is_set():
        return Verdict(feature.id, "SKIP", "nobody wants to know any more")
    with tempfile.TemporaryDirectory(prefix="compilepool-", ignore_cleanup_errors=True) as name:
        order = Order(feature.id, module, function, requirements, import_path(), feature.limit, mutant)
        return _run(order, Path(name), stop)


def import_path() -> list[str]:
    """This interpreter's, as one that has another working directory is to have it."""
    return [os.path.abspath(entry) for entry in sys.path]


def write_order(order: Order, folder: Path) -> None:
    """Put it where the interpreter looks for it."""
    (folder / ORDER).write_text(json.dumps(asdict(order)), encoding="utf-8")


def environment(folder: Path, outer: Mapping[str, str]) -> dict[str, str]:
    """Of the interpreter: caches of its own, and nothing that leads the pool."""
    kept = {name: value for name, value in outer.items() if not name.startswith(_NOT_HANDED_ON)}
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        # A pool that is too busy to be asked is to be found out by our bound, not by torch's own.
        "TMPDIR": str(folder),
    }
    return {**kept, **caches}


def _run(order: Order, folder: Path, stop: threading.Event | None) -> Verdict:
    write_order(order, folder)
    began = time.monotonic()
    code = run_interpreter(BOOT, folder, order.limit + SPARE, stop)
    verdict = _verdict(order, folder, code)
    verdict.seconds = round(time.monotonic() - began, 2)
    return verdict


def run_interpreter(
    boot: str, folder: Path, seconds: float, stop: threading.Event | None = None
) -> int | None:
    """Run a fresh interpreter in a folder of its own, and end whatever is left of it then.

    boot: its program, called with the folder and the pid of this process; what it says is in the folder's log. Returns
    its status, None where it had not ended by itself in that time, or nobody wanted to know any more.
    """
    tag = f"{os.getpid()}-{os.urandom(16).hex()}"
    with open(folder / LOG, "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", boot, str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment(folder, os.environ), proctree.TAG: tag},
            cwd=folder,
            start_new_session=True,
        )
        try:
            return _wait(child, seconds, stop)
        finally:
            _end(child, tag)


def _wait(child: subprocess.Popen[bytes], seconds: float, stop: threading.Event | None) -> int | None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not (stop is not None and stop.is_set()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(min(left, _LOOK))
    return child.poll()


def _end(child: subprocess.Popen[bytes], tag: str) -> None:
    """All of it, also where a Ctrl-C comes just then."""
    try:
        end_all(child, tag)
    except KeyboardInterrupt:
        end_all(child, tag)
        raise


def _verdict(order: Order, folder: Path, code: int | None) -> Verdict:
    try:
        told = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        return Verdict(order.feature, told["status"], told["text"], told["notes"])
    except (OSError, ValueError):
        pass
    stacks = _tail(folder / STACKS)
    if code is None or stacks:
        text = (
            f"the scenario was still at it after {order.limit:g} s and was ended; where it stood:\n{stacks}"
        )
        return Verdict(order.feature, "HANG", text)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return Verdict(
        order.feature, "CRASH", f"the interpreter {how} and gave no answer:\n{_tail(folder / LOG)}"
    )


def _tail(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    except OSError:
        return ""
