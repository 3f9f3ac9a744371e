# SPDX-License-Identifier: Apache-2.0
"""An interpreter that several features share, one after the other: each has the seconds of torch's sidecar only once.

What happens in it is in `jointchild`. Here is who asks, waits with a bound, and ends it as soon as anything is not as it
was: the next feature gets a new one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pytest_compilepool import sessionrecord
from pytest_compilepool.conformance.bench import BOUND, READY
from pytest_compilepool.conformance.forks import Begun, ForkServer, ForkServers
from pytest_compilepool.conformance.interpreters import import_path
from pytest_compilepool.conformance.jointchild import SETTLE
from pytest_compilepool.conformance.link import ANSWER, Link
from pytest_compilepool.conformance.order import Order, write_order
from pytest_compilepool.conformance.verdict import Verdict

_SPARE = 5.0
"""Seconds beyond a bound that the interpreter itself keeps."""

_PREPARED = READY + BOUND + _SPARE
_LEFT = 4 * SETTLE + _SPARE
_LOOK = 0.2  # seconds after which it is asked again whether anybody still wants to know


class Joint:
    """One at a time, started when the first feature comes and anew after one that was ended.

    refusal: why there is none, known once that was tried; an empty text else.
    """

    def __init__(self, servers: ForkServers, preload: list[str], requirements: str, mutant: str = "") -> None:
        """servers: from which it is forked, with these modules; requirements, mutant: see `Order`."""
        self._servers, self._preload = servers, preload
        self._order = Order("", "", "", requirements, [], 0.0, mutant)
        self._running: _Running | None = None
        self.refusal = ""

    def attempt(self, order: Order, stop: threading.Event | None = None) -> Verdict | None:
        """Try a feature in it. Returns what came of it, None where there was no healthy pool to try it with."""
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(
                prefix=sessionrecord.folder_prefix(), ignore_cleanup_errors=True
            ) as name:
                verdict = self._attempt(order, Path(name), stop)
        except BaseException:
            self.close()
            raise
        if verdict is not None:
            verdict.seconds = round(time.monotonic() - began, 2)
        return verdict

    def _attempt(self, order: Order, folder: Path, stop: threading.Event | None) -> Verdict | None:
        running = self._ready(order, folder, stop)
        if running is None:
            return None
        try:
            told = running.ask("told", order.limit + _SPARE, stop)
        except TimeoutError:
            told = {"status": "TIMEOUT", "text": f"no answer within {order.limit:g} s"}
        except (EOFError, OSError):
            told = {"status": "CRASH", "text": "the interpreter has ended"}
        verdict = Verdict(order.feature, **told)
        left = "it was not kept"
        if verdict.status == "PASS":
            try:
                left = str(running.ask("left", _LEFT, stop))
            except (TimeoutError, EOFError, OSError) as error:
                left = f"{type(error).__name__}: {error}"
        if left:
            self.close()
        return verdict

    def _ready(self, order: Order, folder: Path, stop: threading.Event | None) -> _Running | None:
        """One that has a healthy pool for this order; where that of before has none, a new one."""
        while not self.refusal:
            new = self._running is None
            if self._running is None:
                self._running = self._start()
            if self._running is None:
                return None
            try:
                self._running.send(order, folder)
                why = str(self._running.ask("ready", _PREPARED, stop))
            except (TimeoutError, EOFError, OSError) as error:
                why = f"{type(error).__name__}: {error}"
            if not why:
                return self._running
            self.close()
            if new:
                # Another one would be no better, and each would take its time.
                self.refusal = why
        return None

    def _start(self) -> _Running | None:
        if not self._servers.having(self._preload).usable():
            return None
        server = self._servers.beside(self._preload)
        try:
            return _Running(server, replace(self._order, path=import_path()))
        except (TimeoutError, EOFError, OSError) as error:
            self.refusal = f"{type(error).__name__}: {error}"
            return None

    def close(self) -> None:
        """End it, with all that it has left. It can be used again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()


class _Running:
    """One that has been started. Raises OSError where that cannot be had."""

    def __init__(self, server: ForkServer, order: Order) -> None:
        self._server, self._stack = server, contextlib.ExitStack()
        self._begun: Begun | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(self._server.kept.clear)
            home = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=sessionrecord.folder_prefix(), ignore_cleanup_errors=True)
            )
            door = stack.enter_context(socket.socket(socket.AF_UNIX))
            name = f"compilepool-{os.getpid()}-{os.urandom(16).hex()}"
            door.bind(f"\0{name}")
            door.listen(1)
            write_order(replace(order, joint=name), Path(home))
            begun = server.begin(Path(home))
            if begun is None:
                raise OSError("it could not be forked")
            stack.callback(server.finish, begun)
            self._link = _admit(door, begun.child.pid)
            door.close()
            stack.callback(self._link.close)
            server.kept.add(self._link.fileno())
            self._stack = stack.pop_all()

    def send(self, order: Order, folder: Path) -> None:
        """Have it try this. Raises OSError."""
        self._link.send(order=asdict(order), folder=str(folder))

    def ask(self, what: str, seconds: float, stop: threading.Event | None) -> Any:
        """Its next answer, which is to be this. Raises TimeoutError, and EOFError or OSError where there is none."""
        deadline = time.monotonic() + seconds
        while True:
            if stop is not None and stop.is_set():
                raise TimeoutError("nobody wants to know any more")
            try:
                return self._link.receive(min(_LOOK, deadline - time.monotonic()))[what]
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        """End it."""
        self._stack.close()


def _admit(door: socket.socket, pid: int) -> Link:
    """The process of that pid, which is to connect. Raises TimeoutError."""
    deadline = time.monotonic() + ANSWER
    while True:
        door.settimeout(max(deadline - time.monotonic(), 0.001))
        connected, _ = door.accept()
        told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", told)[0] == pid:
            return Link(connected)
        connected.close()  # nobody that was asked
