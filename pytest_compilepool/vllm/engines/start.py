# SPDX-License-Identifier: Apache-2.0
"""Starting an interpreter that starts an engine: hermetic, bounded, and nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree, sessionrecord
from pytest_compilepool.fresh.ending import end_all
from pytest_compilepool.vllm.engines import shared
from pytest_compilepool.vllm.engines.order import (
    ANSWER,
    EVENTS,
    GATE_SECONDS,
    LOG,
    ORDER,
    SHUTDOWN_SECONDS,
    STACKS,
    Order,
    Run,
)
from pytest_compilepool.vllm.events import read_events
from pytest_compilepool.vllm.settings import EVENTS as EVENTS_VARIABLE
from pytest_compilepool.vllm.settings import PROCESSES

SPARE = 15.0
"""Seconds beyond its limit after which an interpreter is ended from outside: by then it has told where it stood."""

EXIT_SECONDS = 20.0
"""Seconds after the shutdown of its engine in which what a process has started may end by itself."""

_BOOT = (
    "import json, os, sys; sys.path[:] = json.load(open(os.path.join(sys.argv[1], 'order.json')))['path']; "
    "from pytest_compilepool.vllm.engines import child; child.main(sys.argv[1], int(sys.argv[2]))"
)
_MODELINFOS = "modelinfos"

# vLLM asks the kernel for a free port, lets it go, and listens on it seconds later: of starts at a time another may have it.
_PORT_TAKEN, _TRIES = "EADDRINUSE", 2
_TAIL = 6000

# Whoever asks has settings of vLLM and of torch that are not to decide what is found.
_NOT_HANDED_ON = ("VLLM_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "TORCH_", "TRITON_", "PYTEST_", "COMPILEPOOL_")

_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # As long as this package waits for them: a rank that is killed after vLLM's 5 s leaves shared memory.
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": f"{SHUTDOWN_SECONDS:g}",
    # A CPU machine: a small cache, and cores left to whoever has them.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # A GPU machine: what compiles kernels of its own for minutes.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_DEEP_GEMM_WARMUP": "skip",
    "VLLM_USE_DEEP_GEMM": "0",
    # C++ kernels: eight seconds of a start on a CPU machine go into asking the compiler what it can and into headers.
    "TORCHINDUCTOR_VEC_ISA_OK": "1",
    "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    "PYTHONHASHSEED": "0",
}


def run(
    order: Order, root: Path, *, modelinfos: Path | None = None, stop: threading.Event | None = None
) -> Run:
    """Have a fresh interpreter do it. root: VLLM_CACHE_ROOT and the other caches, made where it is not there.

    modelinfos: a folder that starts share what vLLM has found out about model classes in, or None; it says nothing
    about compiles, and costs a process and seconds a start. Raises nothing for what vLLM does; see `Run.error`.
    """
    for last in (*[False] * _TRIES, True):
        with tempfile.TemporaryDirectory(
            prefix=sessionrecord.folder_prefix("vllm"), ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            _share(modelinfos, root)
            told = {**asdict(order), "path": [os.path.abspath(entry) for entry in sys.path]}
            (folder / ORDER).write_text(json.dumps(told), encoding="utf-8")
            found = _run(order, root, folder, stop)
        # Nothing has been compiled then: the caches are as they were.
        if last or found.engines or _PORT_TAKEN not in found.error:
            break
    return found


def _run(order: Order, root: Path, folder: Path, stop: threading.Event | None) -> Run:
    tag = proctree.tag_below()
    with open(folder / LOG, "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment(order, root, folder, os.environ), proctree.TAG: tag},
            cwd=folder,
            start_new_session=True,
        )
    survivors: list[str] = []
    status: int | None = None
    try:
        status = _wait(child, order.limit + SPARE + (GATE_SECONDS if order.gate else 0.0), stop)
        if status is not None:
            survivors = _left(child.pid, tag)
    finally:
        end_all(child, tag)
        segments = shared.left(folder)
        shared.remove(segments)
    return replace(_answer(folder, status, survivors, order.limit), shared=segments)


def environment(order: Order, root: Path, folder: Path, outer: Mapping[str, str]) -> dict[str, str]:
    """Of the interpreter. root: of its caches; folder: its own; outer: of this process."""
    kept = {name: value for name, value in outer.items() if not name.startswith(_NOT_HANDED_ON)}
    kept |= _QUIET | {
        "VLLM_CACHE_ROOT": str(root),
        "TORCHINDUCTOR_CACHE_DIR": str(root / "inductor"),
        "TRITON_CACHE_DIR": str(root / "triton"),
        "TMPDIR": str(folder),
        # Its sockets: a path that is counted from the folder that it runs in, since 107 characters are all they may have.
        "VLLM_RPC_BASE_PATH": ".",
        "VLLM_PLUGINS": "compilepool" if order.plugin else "",
        EVENTS_VARIABLE: str(folder / EVENTS),
    }
    if not order.plugin:
        del kept[EVENTS_VARIABLE]
    if order.processes:
        kept[PROCESSES] = order.processes
    for name, value in order.environment.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


def _share(modelinfos: Path | None, root: Path) -> None:
    """Where the root cannot be written to, vLLM is to find that out, not we."""
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        if modelinfos is not None and not (root / _MODELINFOS).exists():
            modelinfos.mkdir(parents=True, exist_ok=True)
            (root / _MODELINFOS).symlink_to(modelinfos, target_is_directory=True)


def _wait(child: subprocess.Popen[bytes], seconds: float, stop: threading.Event | None) -> int | None:
    from pytest_compilepool.conformance.interpreters import wait

    return wait(child, seconds, stop)


def _left(pid: int, tag: str) -> list[str]:
    """Command lines of what is still there of an interpreter that has ended, once it has had time to go."""

    def there() -> list[Any]:
        return [row for row in proctree.strays(pid, tag, proctree.table()) if not row.dead]

    proctree.wait_gone([row.key for row in there()], EXIT_SECONDS)
    return [" ".join(proctree.command(row.pid)) or str(row.pid) for row in there()]


def _answer(folder: Path, status: int | None, survivors: list[str], limit: float = 0.0) -> Run:
    log = _tail(folder / LOG)
    try:
        found = Run.from_json(json.loads((folder / ANSWER).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        stacks = _tail(folder / STACKS)
        how = "was still at it when its time was over" if status is None else f"ended with status {status}"
        if stacks.startswith("Timeout"):
            how = f"was still at it after {limit:g} s, its limit,"
        found = Run(error=f"the interpreter {how} and gave no answer:\n{stacks}\n{log}")
    with contextlib.suppress(OSError):
        found.events = [asdict(event) for event in read_events(str(folder / EVENTS))]
    with contextlib.suppress(OSError):
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        # vLLM 0.32 sets its logging up when it has its plugins: what comes before has no level in front of it.
        found.warnings = [
            line for line in text.splitlines() if "compile pool" in line and not re.search(r"\bINFO\b", line)
        ]
    found.status, found.survivors, found.log = status, survivors, log
    return found


def _tail(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)[-_TAIL:]


def remove(root: Path) -> None:
    """Remove caches that nobody wants any more. Raises nothing."""
    shutil.rmtree(root, ignore_errors=True)
