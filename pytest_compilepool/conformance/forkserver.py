# SPDX-License-Identifier: Apache-2.0
"""A process that has imported what every scenario needs, and forks interpreters from there: for each client a server, which
forks one interpreter at a time.

Not multiprocessing's own: what that forks is a `Process` with a parent and a main module of multiprocessing's making, and a
pool would find itself in another place than in a program.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any

from pytest_compilepool.conformance.twin import become
from pytest_compilepool.fresh.ending import die_with
from pytest_compilepool.leaks.processes import adopt_orphans


def listen(number: int, parent: int, preload: list[str]) -> None:
    """Import these modules, then fork a server for everybody who connects. Ends with its parent.

    number: descriptor of a socket that listens; parent: pid of who has started this.
    """
    die_with(parent)
    # Whoever started the run may ignore it, and then nobody could be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    refusal = _prepare(preload)
    with socket.socket(fileno=number) as door:
        while True:
            # Where there is no descriptor or process to be had, one client less is served, and the others still are.
            with contextlib.suppress(OSError):
                _admit(door, refusal)


def _admit(door: socket.socket, refusal: str) -> None:
    select.select([door.fileno()], [], [])
    try:
        link, _ = door.accept()
    except OSError:
        time.sleep(0.1)  # who wants to come in still does
        raise
    me = os.getpid()
    with link:
        _reap()
        if _is_mine(link) and os.fork() == 0:
            door.close()
            die_with(me)
            _serve(link, refusal)


def _is_mine(link: socket.socket) -> bool:
    """Whether it is the user's own process that has connected: what it sends is done."""
    peer = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", peer)[1] == os.getuid())


def _serve(link: socket.socket, refusal: str) -> None:
    """Do what comes through that link until nobody is at its other end any more. Does not return.

    Messages are lines of JSON. `{"run": {...}}` forks an interpreter: two answers follow, its pid and then its status.
    `{"reap": true}` waits for what has lost its parent and has ended.
    """
    with contextlib.suppress(OSError, KeyboardInterrupt):
        # What a scenario's processes leave comes here, where it is found and ended.
        adopt_orphans()
        _tell(link, refusal=refusal, pid=os.getpid())
        with link.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                told = json.loads(line)
                if "run" in told:
                    _run(told["run"], link)
                else:
                    _tell(link, reaped=_reap())
    os._exit(0)


def _tell(link: socket.socket, **message: object) -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


def _prepare(preload: list[str]) -> str:
    """Import them. Returns why this process is not to be forked; an empty text where it can be."""
    try:
        for name in preload:
            importlib.import_module(name)
        # None of it goes away: a fork that looks for garbage in it would only copy it.
        gc.collect()
        gc.freeze()
        # What they have said is not to be said again by every fork.
        sys.stdout.flush()
        sys.stderr.flush()
        # Old kernels and some containers have none.
        os.close(os.pidfd_open(os.getpid()))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    # A thread is not forked, and what it held is held for ever.
    threads = len(os.listdir("/proc/self/task"))
    return "" if threads == 1 else f"after importing {', '.join(preload)} it has {threads} threads"


def _run(order: dict[str, Any], link: socket.socket) -> None:
    server, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            os.close(link.detach())
            os.setsid()
            become(order["folder"], order["log"], order["environment"], order["path"], order["arguments"])
            from pytest_compilepool.conformance import child

            child.main(order["folder"], server)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    _tell(link, pid=pid)
    ended = os.pidfd_open(pid)
    # Nothing is sent meanwhile: if the link stirs, who wanted to know has gone.
    stirred, _, _ = select.select([ended, link.fileno()], [], [])
    os.close(ended)
    if ended not in stirred:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    _tell(link, status=os.waitstatus_to_exitcode(status))


def _reap() -> int:
    """How many processes that had ended were waited for."""
    number = 0
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            number += 1
    return number
