# SPDX-License-Identifier: Apache-2.0
"""Fresh interpreters: started anew, with an outer deadline, and ended with all that they have started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pytest_compilepool import proctree
from pytest_compilepool.conformance.order import LOG
from pytest_compilepool.fresh.ending import Child, end_all

_LOOK = 0.2  # seconds after which it is asked again whether anybody still wants to know
# Settings of whoever runs the suite would be settings of the pool that is tried.
_NOT_HANDED_ON = (
    *("PYTEST_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "TRITON_", "TORCH_", "COMPILEPOOL_"),
    # They change what an interpreter imports, or make a warning of torch's an error.
    *("PYTHONSAFEPATH", "PYTHONWARNINGS", "PYTHONDEVMODE"),
)

# What a scenario is to be tried with, said by whoever runs the suite.
_HANDED_ON = ("COMPILEPOOL_VLLM_",)


def import_path() -> list[str]:
    """This interpreter's, as one that has another working directory is to have it."""
    return [os.path.abspath(entry) for entry in sys.path]


def kept(outer: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter gets of the environment of whoever runs the suite."""
    return {
        name: value
        for name, value in outer.items()
        if name.startswith(_HANDED_ON) or not name.startswith(_NOT_HANDED_ON)
    }


def environment(folder: Path, outer: Mapping[str, str]) -> dict[str, str]:
    """Of the interpreter: caches of its own, and nothing that leads the pool."""
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        # A pool that is too busy to be asked is to be found out by our bound, not by torch's own.
        "TMPDIR": str(folder),
    }
    return {**kept(outer), **caches}


def run_interpreter(
    boot: str, folder: Path, seconds: float, stop: threading.Event | None = None
) -> int | None:
    """Run a fresh interpreter in a folder of its own, and end whatever is left of it then.

    boot: its program, called with the folder and the pid of this process; what it says is in the folder's log. Returns
    its status, None where it had not ended by itself in that time, or nobody wanted to know any more.
    """
    tag = proctree.tag_below()
    child = start(boot, folder, tag, own_session=True)
    try:
        return wait(child, seconds, stop)
    finally:
        end(child, tag)


def start(boot: str, folder: Path, tag: str, *, own_session: bool) -> subprocess.Popen[bytes]:
    """Start one and return at once. tag: value of `proctree.TAG` for it; own_session: as its leader."""
    with open(folder / LOG, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", boot, str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment(folder, os.environ), proctree.TAG: tag},
            cwd=folder,
            start_new_session=own_session,
        )


def wait(child: Child, seconds: float, stop: threading.Event | None) -> int | None:
    """Until it has ended: its status. None: it had not in that time, or nobody wanted to know any more."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not (stop is not None and stop.is_set()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(min(left, _LOOK))
    return child.poll()


def end(child: Child, tag: str) -> None:
    """End it with all that it has started, also where a Ctrl-C comes just then. tag: see `end_all`."""
    try:
        end_all(child, tag)
    except KeyboardInterrupt:
        end_all(child, tag)
        raise
