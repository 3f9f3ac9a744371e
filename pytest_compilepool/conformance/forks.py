# SPDX-License-Identifier: Apache-2.0
"""Interpreters that are forked: each is as one that has just imported the modules named, without the seconds that takes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.conformance.interpreters import (
    end,
    environment,
    import_path,
    kept,
    run_interpreter,
    wait,
)
from pytest_compilepool.conformance.link import ANSWER, Forked, Link
from pytest_compilepool.conformance.order import BOOT, LOG
from pytest_compilepool.fresh.ending import end_all
from pytest_compilepool.pool import closing
from pytest_compilepool.records import ProcessKey

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from pytest_compilepool.conformance import forkserver; "
    "forkserver.listen(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[4]))"
)
_READY = 120.0  # seconds until it must have imported what it is to


@dataclass(frozen=True)
class Address:
    """Where a process listens that has imported these modules. name: of a socket in Linux's abstract namespace."""

    preload: tuple[str, ...]
    name: str


class Origin:
    """The process that has imported them, and from which all interpreters are forked. One of several processes may have
    it: the others connect to its address."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Start it, and do not wait. Raises OSError."""
        self.address = Address(tuple(preload), f"compilepool-{os.getpid()}-{os.urandom(16).hex()}")
        self._tag = proctree.tag_below()
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(f"\0{self.address.name}")
            door.listen(socket.SOMAXCONN)
            command = [sys.executable, "-c", _BOOT, str(door.fileno()), str(os.getpid())]
            command += [json.dumps(import_path()), json.dumps(list(preload))]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # numpy's BLAS would have threads from the beginning; nobody here multiplies.
                env={**kept(os.environ), "OPENBLAS_NUM_THREADS": "1", proctree.TAG: self._tag},
                # A file of the user's there would be imported in the place of one of Python's.
                cwd="/",
                pass_fds=[door.fileno()],
                start_new_session=True,
            )

    def close(self) -> None:
        """End it, and all that was forked from it."""
        end_all(self.process, self._tag)


@dataclass(frozen=True)
class Begun:
    """An interpreter that is at work. tag: value of `proctree.TAG` in its environment."""

    child: Forked
    tag: str


class ForkServer:
    """A process that forks interpreters, one at a time; not for several threads. Started when the first is wanted, and anew
    where it has died.

    preload: modules that they have; address: of somebody else's origin that has them, or None for one of its own.
    refusal: why none can be forked, known once that was tried; an empty text else. kept: descriptors of this process that
    whoever uses it keeps open to what was forked.
    """

    def __init__(self, preload: Sequence[str], address: Address | None = None) -> None:
        self._preload = list(preload)
        self._address = address
        self._origin: Origin | None = None
        self._link: Link | None = None
        self._key: ProcessKey | None = None
        self.kept: set[int] = set()
        # Its process is waited for by a descriptor of it (Linux 5.3).
        self.refusal = "" if hasattr(os, "pidfd_open") else "this is no Linux machine"

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return 0 if self._key is None else self._key.pid

    @property
    def address(self) -> Address | None:
        """Of the origin that it uses, its own or somebody else's; None while there is none."""
        return self._address if self._origin is None else self._origin.address

    @property
    def pids(self) -> set[int]:
        """Of the processes that are below this one because of it."""
        return set() if self._origin is None else {self._origin.process.pid}

    @property
    def fds(self) -> set[int]:
        """Descriptors of this process that belong to it."""
        return self.kept | (set() if self._link is None else {self._link.fileno()})

    @property
    def used(self) -> bool:
        """Whether it is there, and can fork."""
        return self._link is not None and self._key is not None and proctree.alive(self._key)

    def usable(self) -> bool:
        """Start it where that was not done; whether it can be used."""
        if self.refusal or self._link is not None:
            return not self.refusal
        try:
            self._connect()
        except (TimeoutError, EOFError, OSError) as error:
            self.refusal = f"it did not come to be: {type(error).__name__}: {error}"
        except BaseException:
            self.close()
            raise
        if self.refusal:
            self.close()
        return not self.refusal

    def _connect(self) -> None:
        address = self._address
        if address is None:
            self._origin = Origin(self._preload)
            address = self._origin.address
        self._link = Link.to(address.name)
        told = self._link.receive(_READY)
        row = proctree.lookup(told["pid"])
        if row is None or row.dead:
            raise EOFError("the process has ended")
        # By its start time too: its pid may one day be somebody else's.
        self.refusal, self._key = told["refusal"], row.key

    def run(self, folder: Path, seconds: float, stop: threading.Event | None = None) -> int | None:
        """What `interpreters.run_interpreter` does, in an interpreter that does the order in that folder."""
        begun = self.begin(folder)
        if begun is None:
            return run_interpreter(BOOT, folder, seconds, stop)
        try:
            return wait(begun.child, seconds, stop)
        finally:
            self.finish(begun)

    def begin(self, folder: Path) -> Begun | None:
        """Fork an interpreter that does the order in that folder, and do not wait; None where that cannot be had.

        `finish` is to be called for it before the next one is begun.
        """
        tag = proctree.tag_below()
        (folder / LOG).write_bytes(b"")
        order = {
            "folder": str(folder),
            "log": str(folder / LOG),
            "arguments": [str(folder), str(os.getpid())],
            "environment": {**environment(folder, os.environ), proctree.TAG: tag},
            "path": import_path(),
        }
        # One that has died since gives way to another, once.
        child = self._fork(order) or self._fork(order)
        return None if child is None else Begun(child, tag)

    def finish(self, begun: Begun) -> None:
        """End it, and all that it has left."""
        whole = False
        try:
            end(begun.child, begun.tag)
            whole = self._tidy(begun.child)
        finally:
            if not whole:
                self.close()

    def _fork(self, order: dict[str, Any]) -> Forked | None:
        """None, and it is closed, where that cannot be had."""
        if not self.usable() or self._link is None:
            return None
        try:
            self._link.send(run=order)
            return Forked(self._link, int(self._link.receive(ANSWER)["pid"]))
        except (TimeoutError, EOFError, OSError):
            self.close()
            return None
        except BaseException:
            self.close()
            raise

    def _tidy(self, child: Forked) -> bool:
        """End what the interpreter has left to its parent. Returns whether the next one can be forked."""
        assert self._link is not None
        if child.poll() is None or self._key is None or not proctree.alive(self._key):
            return False
        # Told by the server's own tree: who had lost its parent has come to it.
        closing.end_processes([row.key for row in proctree.descendants(self.pid) if not row.dead])
        try:
            self._link.send(reap=True)
            self._link.receive(ANSWER)
        except (TimeoutError, EOFError, OSError):
            return False
        return True

    def close(self) -> None:
        """End it, and what it has forked. It can be used again."""
        link, origin, key = self._link, self._origin, self._key
        self._link = self._origin = self._key = None
        if key is not None and proctree.alive(key):
            tree = [row.key for row in proctree.descendants(key.pid) if not row.dead]
            closing.end_processes([*tree, key])
        if link is not None:
            link.close()
        if origin is not None:
            origin.close()


class ForkServers:
    """Those of one session, or of one thread of it: one for each list of modules. address: of an origin there is already."""

    def __init__(self, address: Address | None = None) -> None:
        self._address = address
        self._servers: dict[tuple[str, ...], ForkServer] = {}
        self._beside: dict[tuple[str, ...], ForkServer] = {}

    def having(self, preload: Sequence[str]) -> ForkServer:
        """The one whose interpreters begin with these modules."""
        wanted = tuple(preload)
        if wanted not in self._servers:
            known = self._address is not None and self._address.preload == wanted
            self._servers[wanted] = ForkServer(wanted, self._address if known else None)
        return self._servers[wanted]

    def beside(self, preload: Sequence[str]) -> ForkServer:
        """Another one with these modules, for an interpreter that is still there while `having` forks the next ones."""
        wanted, first = tuple(preload), self.having(preload)
        found = self._beside.get(wanted)
        # By way of the same origin: importing the modules once is enough.
        address = first.address if first.usable() else None
        if found is None or (found.address != address and not found.used):
            if found is not None:
                found.close()
            found = self._beside[wanted] = ForkServer(wanted, address)
        return found

    @property
    def pids(self) -> set[int]:
        """Of their processes."""
        return {pid for server in self._all() for pid in server.pids}

    @property
    def fds(self) -> set[int]:
        """Descriptors of this process that belong to them."""
        return {fd for server in self._all() for fd in server.fds}

    def close(self) -> None:
        """End them all."""
        for server in self._all():
            server.close()

    def _all(self) -> list[ForkServer]:
        return [*self._beside.values(), *self._servers.values()]
