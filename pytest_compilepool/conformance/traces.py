# SPDX-License-Identifier: Apache-2.0
"""What a feature can leave in its process that the next one there would find: read, and compared with what was."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SHOWN = 200


def traces(of_the_pool: Mapping[str, Any]) -> dict[str, Any]:
    """By name of what it is. of_the_pool: what its requirements say that there is beside (`Requirements.state`).

    Modules that were imported are none of it: importing one again gives the same.
    """
    return {
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
        "sys.path": list(sys.path),
        "sys.argv": list(sys.argv),
        "the module __main__": id(sys.modules.get("__main__")),
        "signal handlers": {number: _handler(number) for number in signal.valid_signals()},
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "hooks": [sys.excepthook, threading.excepthook, sys.unraisablehook, sys.gettrace(), sys.getprofile()],
        "standard streams": [sys.stdin, sys.stdout, sys.stderr],
        "the folder for temporary files": tempfile.tempdir,
        "CPUs": sorted(os.sched_getaffinity(0)),
        "limits": _limits(),
        **moving(),
        **of_the_pool,
    }


def moving() -> dict[str, Any]:
    """Those of them that may go by themselves a moment later."""
    return {"threads": sorted(os.listdir("/proc/self/task"), key=int), "descriptors": _descriptors()}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is not as it was, in words; an empty text where all of it is."""
    for name, was in before.items():
        now = after.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            was, now = (
                {k: v for k, v in one.items() if one_has_not(other, k, v)}
                for one, other in ((was, now), (now, was))
            )
        if was != now:
            return f"{name} were {str(was)[:_SHOWN]} before it and are {str(now)[:_SHOWN]} after it"
    return ""


def one_has_not(other: Mapping[Any, Any], key: Any, value: Any) -> bool:
    """Whether another mapping has something else there, or nothing."""
    return key not in other or other[key] != value


def _handler(number: int) -> Any:
    with contextlib.suppress(ValueError):
        return signal.getsignal(number)
    return None


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists the folder
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _limits() -> list[Any]:
    import resource

    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    umask = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")]
    return [*((name, resource.getrlimit(getattr(resource, name))) for name in names), *umask]
