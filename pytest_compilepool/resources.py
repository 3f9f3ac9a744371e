# SPDX-License-Identifier: Apache-2.0
"""What this process may use: CPUs, memory and GPUs; not what the host has.

Nothing here imports torch or initialises CUDA. `root` is "/" but in tests, which lay out a /proc,
a /sys and a /dev of their own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool.cgroups import Level, levels, read_text

_ROOT = Path("/")


@dataclass(frozen=True)
class Cpus:
    """CPUs that this process may use.

    count: whole CPUs, at least 1; affinity: how many it may be scheduled on; quota: the smallest cgroup
    CPU quota, in CPUs, or None without one; source: which of them decided, in words.
    """

    count: int
    affinity: int
    quota: float | None
    source: str


@dataclass(frozen=True)
class Memory:
    """Memory that this process may use, in bytes, by the limit that leaves least.

    limit: that limit; used: what counts against it and cannot simply be dropped; available: what is
    left, at least 0; source: whose limit it is, in words.
    """

    limit: int
    used: int
    available: int
    source: str


@dataclass(frozen=True)
class Gpus:
    """GPUs that this process may use. count: how many, 0 without one; source: how that is known, in words."""

    count: int
    source: str


def usable_cpus(root: Path = _ROOT) -> Cpus:
    """CPUs by affinity and by cgroup quota, whichever is less. A quota of 1.5 counts as 1. Raises nothing."""
    if hasattr(os, "sched_getaffinity"):
        affinity, source = len(os.sched_getaffinity(0)), "affinity"
    else:
        affinity, source = os.cpu_count() or 1, "os.cpu_count()"
    quota: float | None = None
    where = ""
    for level in levels("cpu", root):
        found = _cpu_quota(level)
        if found is not None and (quota is None or found < quota):
            quota, where = found, level.name
    if quota is None or math.floor(quota) >= affinity:
        return Cpus(max(1, affinity), affinity, quota, source)
    return Cpus(max(1, math.floor(quota)), affinity, quota, f"cgroup CPU quota of {quota:g} in {where}")


def _cpu_quota(level: Level) -> float | None:
    if level.version == 2:
        quota, _, period = (level.read("cpu.max") or "").partition(" ")
    else:
        quota = level.read("cpu.cfs_quota_us") or ""
        period = level.read("cpu.cfs_period_us") or ""
    # "max" in version 2 and -1 in version 1 mean none; neither is all digits.
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def memory_budget(root: Path = _ROOT) -> Memory:
    """Physical memory and every cgroup limit, whichever leaves least. Raises nothing on Linux.

    Page cache that the kernel would drop first (`inactive_file`) counts as available. Swap does not.
    Without a /proc, psutil says what is physically there.
    """
    # Version 1 has no word for "no limit", only a huge number: it leaves more than there is.
    candidates = [_physical_memory(root)]
    candidates += [found for level in levels("memory", root) if (found := _memory_limit(level)) is not None]
    return min(candidates, key=lambda memory: memory.available)


def _physical_memory(root: Path) -> Memory:
    text = read_text(root / "proc/meminfo")
    if text is None:
        import psutil

        seen = psutil.virtual_memory()
        return Memory(seen.total, seen.total - seen.available, seen.available, "physical memory")
    figures: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            figures[name] = int(number[0]) * 1024
    total = figures.get("MemTotal", 0)
    # Some sandboxes write a short /proc/meminfo.
    free = figures.get("MemAvailable", figures.get("MemFree", 0) + figures.get("Cached", 0))
    return Memory(total, max(0, total - free), free, "physical memory")


def _memory_limit(level: Level) -> Memory | None:
    if level.version == 2:
        limit, used = _number(level, "memory.max"), _number(level, "memory.current")
        cache = "inactive_file"
    else:
        limit, used = _number(level, "memory.limit_in_bytes"), _number(level, "memory.usage_in_bytes")
        # Usage covers the cgroups below, so the cache must too; plain `inactive_file` does not.
        cache = "total_inactive_file"
    if limit is None or used is None:
        return None
    for line in (level.read("memory.stat") or "").splitlines():
        name, _, number = line.partition(" ")
        if name == cache and number.isdecimal():
            used = max(0, used - int(number))
    return Memory(limit, used, max(0, limit - used), f"cgroup memory limit in {level.name}")


def _number(level: Level, file: str) -> int | None:
    text = level.read(file) or ""
    return int(text) if text.isdecimal() else None


def gpu_count(environ: Mapping[str, str] | None = None, root: Path = _ROOT) -> Gpus:
    """GPUs by the variables that hide some of them, else by what the driver shows. Raises nothing.

    environ: the environment to read, `os.environ` if None. Several MIG ids count as several GPUs.
    CUDA ends the list at the first entry that it does not know ("-1", an index that is too high, a
    word) and takes a list that names a device twice for empty; so does this.
    """
    environ = os.environ if environ is None else environ
    nvidia = _nvidia_gpus(root)
    amd = _amd_gpus(root)
    by_cuda = "CUDA_VISIBLE_DEVICES" in environ
    by_amd = [name for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if name in environ]
    if nvidia.count == 0 and (amd.count > 0 or (by_amd and not by_cuda)):
        # HIP counts within what ROCr left, and reads CUDA's variable where its own is not set.
        if by_cuda and "HIP_VISIBLE_DEVICES" not in environ:
            by_amd.append("CUDA_VISIBLE_DEVICES")
        return _narrowed(amd, by_amd, environ)
    return _narrowed(nvidia, ["CUDA_VISIBLE_DEVICES"] if by_cuda else [], environ)


def gpu_names(environ: Mapping[str, str] | None = None, root: Path = _ROOT) -> tuple[str, list[str]]:
    """The variable that hides GPUs here, and the name of each one in it that this process may use. Raises nothing.

    environ: as in `gpu_count`. The list is empty where there is none, or where nothing tells which there are.
    """
    environ = os.environ if environ is None else environ
    nvidia, amd = _nvidia_gpus(root), _amd_gpus(root)
    variable = "HIP_VISIBLE_DEVICES" if nvidia.count == 0 and amd.count > 0 else "CUDA_VISIBLE_DEVICES"
    known = nvidia.count or amd.count or None
    if variable in environ:
        return variable, _taken(environ[variable], known)
    # What ROCr hides is counted anew from 0.
    return variable, [str(number) for number in range(gpu_count(environ, root).count)]


def _narrowed(seen: Gpus, names: list[str], environ: Mapping[str, str]) -> Gpus:
    # None seen is no proof that none are there (WSL, Tegra): then the first list is believed.
    known = seen.count or None
    for name in names:
        known = _listed(environ[name], known)
        seen = Gpus(known, f"{name}={environ[name]}")
    return seen


def _listed(text: str, known: int | None) -> int:
    """How many devices a list names. known: how many there are to choose from, None if that is not known."""
    return len(_taken(text, known))


def _taken(text: str, known: int | None) -> list[str]:
    """The devices that a list names, as CUDA reads it."""
    taken: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.isdecimal():
            if known is not None and int(entry) >= known:
                break
            taken.append(str(int(entry)))
        elif entry.startswith(("GPU-", "MIG-")):
            taken.append(entry)
        else:
            break
    return taken if len(set(taken)) == len(taken) else []


def _nvidia_gpus(root: Path) -> Gpus:
    by_driver = len(_entries(root / "proc/driver/nvidia/gpus"))
    by_file = sum(1 for name in _entries(root / "dev") if re.fullmatch("nvidia[0-9]+", name))
    # A container may see all of the host's GPUs in /proc but be given fewer device files; where the
    # files are made on first use there may be none yet.
    if by_driver and (by_file == 0 or by_driver <= by_file):
        return Gpus(by_driver, "/proc/driver/nvidia/gpus")
    if by_file:
        return Gpus(by_file, "/dev/nvidia*")
    return Gpus(0, "no GPU found")


def _amd_gpus(root: Path) -> Gpus:
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    # A CPU is a node too, with id 0. The kernel refuses to show the id of a GPU that the container's
    # device rules forbid: unreadable is not ours.
    ids = [read_text(nodes / node / "gpu_id") for node in _entries(nodes)]
    count = sum(1 for text in ids if text is not None and text.isdecimal() and int(text) != 0)
    return Gpus(count, "/sys/class/kfd" if count else "no GPU found")


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def start_environment(root: Path = _ROOT) -> dict[str, str]:
    """The environment that this process was started with, before anything in it changed a variable.

    Where there is no /proc/self/environ, or where it has been written over (process titles are kept
    there: setproctitle does it), a copy of `os.environ` as it is now. Raises nothing.
    """
    try:
        blob = (root / "proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    parts = blob.removesuffix(b"\0").split(b"\0") if blob else []
    if not all(b"=" in part for part in parts):
        return dict(os.environ)
    pairs = (part.partition(b"=") for part in parts)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
