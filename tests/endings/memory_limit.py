# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup below our own, for one process that the kernel is to kill when it has used that up."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from pathlib import Path

from pytest_compilepool.cgroups import Level, levels

MIB = 1 << 20


class NoLimit(Exception):
    """No such cgroup can be made here. Its text says why."""


class MemoryLimit:
    """One, with room for `mib` MiB beyond what a process has when it enters. Raises NoLimit. A context manager."""

    def __init__(self, mib: int) -> None:
        own = _divisible()
        _sweep(own)
        self._version = own.version
        self.path = own.path / f"compilepool-test-{uuid.uuid4().hex[:12]}"
        try:
            self.path.mkdir()
        except OSError as error:
            raise NoLimit(f"no cgroup can be made below {own.path}: {error.strerror}") from None
        try:
            limit = "memory.max" if own.version == 2 else "memory.limit_in_bytes"
            (self.path / limit).write_text(str(mib * MIB))
            swap = "memory.swap.max" if own.version == 2 else "memory.memsw.limit_in_bytes"
            if (self.path / swap).exists():
                (self.path / swap).write_text("0" if own.version == 2 else str(mib * MIB))
            elif len(Path("/proc/swaps").read_text().splitlines()) > 1:
                raise OSError(None, "it would be swapped out instead")
        except OSError as error:
            self.path.rmdir()
            raise NoLimit(f"{self.path} takes no limit: {error.strerror}") from None

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed for it."""
        file = "memory.events" if self._version == 2 else "memory.oom_control"
        found = re.search(r"^oom_kill (\d+)$", (self.path / file).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def __enter__(self) -> MemoryLimit:
        return self

    def __exit__(self, *told: object) -> None:
        # While a process is in it it stays: what went wrong with that one is of more interest.
        with contextlib.suppress(OSError):
            self.path.rmdir()


def _sweep(own: Level) -> None:
    """Those that a killed run has left; one that is in use cannot be removed."""
    for path in own.path.glob("compilepool-test-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 3600:
                path.rmdir()


def _divisible() -> Level:
    """Our own memory cgroup, where one can be made below it while we are in it."""
    chain = levels("memory")
    for version in (1, 2):
        level = next((level for level in chain if level.version == version), None)
        if level is None:
            continue
        if level.version == 1 and level.read("memory.limit_in_bytes") is not None:
            return level
        if level.version == 2 and "memory" in (level.read("cgroup.subtree_control") or "").split():
            return level
    raise NoLimit("the memory cgroup of this process cannot be divided")


def writable() -> str:
    """Why a process cannot be killed here for the memory that it uses; "" where it can."""
    if os.geteuid() != 0:
        return "only root makes cgroups here"
    try:
        with MemoryLimit(64):
            pass
    except NoLimit as error:
        return str(error)
    return ""
