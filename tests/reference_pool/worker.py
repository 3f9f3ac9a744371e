# SPDX-License-Identifier: Apache-2.0
"""A worker: takes one job after another, in the surroundings that its sender had when it was sent."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing.spawn
import os
import pickle
import signal
import sys
import traceback
from typing import Any

from reference_pool import frames
from reference_pool.errors import RemoteError

_PR_SET_PDEATHSIG = 1


def main(link: int, sidecar: int) -> None:
    """Serve until the sidecar closes the link; never returns. sidecar: its pid."""
    # A group of its own, so that whatever a job starts can be ended with it; and an end with its sidecar's.
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != sidecar:
        os._exit(0)
    frames.send(link, frames.HELLO, os.getpid())
    while (frame := frames.receive(link)) is not None:
        _, number, payload = frame
        kind, answer = run(payload)
        frames.send(link, kind, number, answer)
    os._exit(0)


def run(payload: bytes) -> tuple[int, bytes]:
    """Do one job. Returns the kind of its answer and the answer, pickled."""
    try:
        surroundings, job = pickle.loads(payload)
        take_over(surroundings)
        function, args, kwargs = pickle.loads(job)
        return frames.RESULT, dump(function(*args, **kwargs))
    except BaseException as error:
        return frames.ERROR, explain(error)


def dump(value: Any) -> bytes:
    """Pickle a result. What cannot be loaded again is found here, where it can be told of."""
    text = pickle.dumps(value)
    pickle.loads(text)
    return text


def explain(error: BaseException) -> bytes:
    """Pickle the error itself where that can be done there and back, with what happened; else that in words."""
    words = "".join(traceback.format_exception(error))
    with contextlib.suppress(Exception):
        text = pickle.dumps((error, words))
        if type(pickle.loads(text)[0]) is type(error) and isinstance(error, Exception):
            return text
    return pickle.dumps((RemoteError(f"{type(error).__name__}: {error}"), words))


_followed = dict(os.environ)
"""What the sender had when this process was started, later at its last job."""


def follow(environment: dict[str, str]) -> None:
    """Change of the environment what the sender has changed of its own since, and nothing else.

    What a job sets for good stays: a CUDA build of torch names its ptxas once in a process (`_set_triton_ptxas_path`,
    2.8 to 2.15), and without that the next job would compile with Triton's.
    """
    for name in _followed.keys() - environment.keys():
        os.environ.pop(name, None)
    for name, text in environment.items():
        if _followed.get(name) != text:
            os.environ[name] = text
    _followed.clear()
    _followed.update(environment)


def take_over(surroundings: dict[str, Any]) -> None:
    """Be where the sender was: import path, environment, main module, Inductor's settings."""
    sys.path[:] = surroundings["path"]
    follow(surroundings["environment"])
    if surroundings["main"] is not None:
        multiprocessing.spawn.prepare({"init_main_from_path": surroundings["main"]})  # type: ignore[attr-defined]
    if surroundings["settings"] is not None:
        import torch._inductor.config as config

        config.load_config(surroundings["settings"])  # type: ignore[attr-defined]
