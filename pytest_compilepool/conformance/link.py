# SPDX-License-Identifier: Apache-2.0
"""What the process that forks interpreters, and what it has forked, tell each other: lines of JSON through a socket."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from typing import Any

ANSWER = 10.0
"""Seconds for what is done at once."""

_ROOM = 120.0
"""Seconds until there must be room for one more who wants to connect."""


class Link:
    """Lines of JSON, each waited for with a bound. connected: a socket of which somebody is at the other end."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._rest = b""

    @classmethod
    def to(cls, name: str) -> Link:
        """To whoever listens under that name of Linux's abstract namespace. Raises OSError where nobody does."""
        found = cls(socket.socket(socket.AF_UNIX))
        found._connect(f"\0{name}")
        return found

    def _connect(self, address: str) -> None:
        deadline = time.monotonic() + _ROOM
        try:
            # Where very many come at the same time it is full, and a connect that waits would wait without a bound.
            self._socket.setblocking(False)
            while True:
                try:
                    return self._socket.connect(address)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError("too many want to connect") from None
                    time.sleep(0.01)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Nothing is said any more."""
        self._socket.close()

    def send(self, **message: object) -> None:
        """Raises OSError: nobody is there."""
        self._socket.settimeout(ANSWER)
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None) -> dict[str, Any]:
        """The next message; None: however long it takes. Raises TimeoutError, and EOFError where there will be none."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._rest:
            # 0 would mean not to wait, and to raise something else.
            self._socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError("the process has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class Forked:
    """A process that the server has forked, with the methods of a Popen that are needed to wait for it."""

    def __init__(self, link: Link, pid: int) -> None:
        self.pid = pid
        self._link = link
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its status, None while it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float) -> int:
        """Its status. Raises subprocess.TimeoutExpired."""
        if self._status is None:
            try:
                self._status = int(self._link.receive(timeout)["status"])
            except (EOFError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired("a forked interpreter", timeout) from None
                # Its parent has died, and it with that.
                self._status = -9
        return self._status
