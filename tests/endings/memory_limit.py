# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup below our own, for one process that the kernel is to kill when it has used that up."""

from __future__ import annotations

import os
import re
import uuid

from pytest_compilepool.cgroups import Level, levels

MIB = 1 << 20


class NoLimit(Exception):
    """No such cgroup can be made here. Its text says why."""


class MemoryLimit:
    """One, with room for `mib` MiB beyond what a process has when it enters. Raises NoLimit."""

    def __init__(self, mib: int) -> None:
        own = _divisible()
        self._version = own.version
        self.path = own.path / f"compilepool-test-{uuid.uuid4().hex[:12]}"
        try:
            self.path.mkdir()
        except OSError as error:
            raise NoLimit(f"no cgroup can be made below {own.path}: {error.strerror}") from None
        try:
            limit = "memory.max" if own.version == 2 else "memory.limit_in_bytes"
            (self.path / limit).write_text(str(mib * MIB))
            for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
                if (self.path / swap).exists():
                    (self.path / swap).write_text("0" if own.version == 2 else str(mib * MIB))
        except OSError as error:
            self.remove()
            raise NoLimit(f"{self.path} takes no limit: {error.strerror}") from None

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed for it."""
        file = "memory.events" if self._version == 2 else "memory.oom_control"
        found = re.search(r"^oom_kill (\d+)$", (self.path / file).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def remove(self) -> None:
        """Of it nothing stays. Raises OSError while a process is in it."""
        self.path.rmdir()


def _divisible() -> Level:
    """Our own memory cgroup, where one can be made below it while we are in it."""
    for level in levels("memory"):
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
        MemoryLimit(64).remove()
    except NoLimit as error:
        return str(error)
    return ""
