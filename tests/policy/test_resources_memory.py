# SPDX-License-Identifier: Apache-2.0
"""Memory by what is physically there and by cgroup limits, page cache taken out."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_compilepool.cgroups import levels
from pytest_compilepool.resources import memory_budget

GIB = 1 << 30
V2 = "/sys/fs/cgroup"
V1 = "/sys/fs/cgroup/memory"


@pytest.fixture
def big(host):
    """64 GiB, 48 of them available."""
    host.meminfo(total=64 * GIB, available=48 * GIB)
    return host


def v2(host, own: str = "/job") -> None:
    host.in_cgroup(f"0::{own}")
    host.mount(V2, "cgroup2")


def limit_v2(host, folder: str, limit: object, used: int, inactive_file: int = 0) -> None:
    stat = f"anon {used}\nfile 7\ninactive_file {inactive_file}\nactive_file 5\nworkingset_refault_file 3\n"
    host.files(f"{V2}{folder}", memory__max=f"{limit}\n", memory__current=f"{used}\n", memory__stat=stat)


def limit_v1(host, folder: str, limit: int, used: int, own_cache: int = 0, total_cache: int = 0) -> None:
    stat = f"cache 9\ninactive_file {own_cache}\ntotal_cache 9\ntotal_inactive_file {total_cache}\n"
    host.files(
        f"{V1}{folder}",
        memory__limit_in_bytes=f"{limit}\n",
        memory__usage_in_bytes=f"{used}\n",
        memory__stat=stat,
    )


def test_physical(big) -> None:
    memory = memory_budget(big.root)
    assert (memory.limit, memory.used, memory.available) == (64 * GIB, 16 * GIB, 48 * GIB)
    assert memory.source == "physical memory"


def test_short_meminfo(host) -> None:
    host.file("/proc/meminfo", "MemTotal: 4096 kB\nMemFree: 1024 kB\nCached: 512 kB\nHugePages_Total: 0\n")
    assert memory_budget(host.root).available == 1536 * 1024


def test_no_proc_at_all(host) -> None:
    psutil = pytest.importorskip("psutil")
    assert memory_budget(host.root).limit == psutil.virtual_memory().total


def test_version_2(big) -> None:
    v2(big)
    limit_v2(big, "/job", 8 * GIB, 3 * GIB)
    memory = memory_budget(big.root)
    assert (memory.limit, memory.used, memory.available) == (8 * GIB, 3 * GIB, 5 * GIB)
    assert memory.source == f"cgroup memory limit in {V2}/job"


def test_page_cache_is_available(big) -> None:
    v2(big)
    limit_v2(big, "/job", 8 * GIB, 7 * GIB, inactive_file=4 * GIB)
    assert memory_budget(big.root).available == 5 * GIB


def test_more_used_than_allowed_leaves_nothing(big) -> None:
    v2(big)
    limit_v2(big, "/job", 2 * GIB, 3 * GIB)
    assert memory_budget(big.root).available == 0


@pytest.mark.parametrize("limit", ["max", "", "x"])
def test_no_limit_in_version_2(big, limit: str) -> None:
    v2(big)
    limit_v2(big, "/job", limit, 3 * GIB)
    assert memory_budget(big.root).source == "physical memory"


def test_a_limit_that_leaves_more_than_there_is(big) -> None:
    v2(big)
    limit_v2(big, "/job", 60 * GIB, GIB)
    assert memory_budget(big.root).available == 48 * GIB


def test_the_level_that_leaves_least(big) -> None:
    v2(big, "/a/b/c")
    limit_v2(big, "/a", 20 * GIB, 18 * GIB)
    limit_v2(big, "/a/b", "max", 9 * GIB)
    limit_v2(big, "/a/b/c", 8 * GIB, 1 * GIB)
    memory = memory_budget(big.root)
    assert memory.available == 2 * GIB
    assert memory.source.endswith(f"{V2}/a")


@pytest.mark.parametrize("no_limit", [9223372036854771712, 9223372036854710272, (1 << 63) - 1])
def test_no_limit_in_version_1(big, no_limit: int) -> None:
    big.in_cgroup("4:memory:/job")
    big.mount(V1, "cgroup", "rw,memory")
    limit_v1(big, "/job", no_limit, 100)
    assert memory_budget(big.root).source == "physical memory"


def test_version_1_counts_what_is_below(big) -> None:
    """Usage is that of the whole subtree, so the page cache of the subtree comes off."""
    big.in_cgroup("4:memory:/job")
    big.mount(V1, "cgroup", "rw,memory")
    limit_v1(big, "/job", 8 * GIB, 7 * GIB, own_cache=GIB, total_cache=4 * GIB)
    assert memory_budget(big.root).available == 5 * GIB


def test_hybrid(big) -> None:
    big.in_cgroup("4:memory:/job", "1:name=systemd:/job", "0::/job")
    big.mount("/sys/fs/cgroup/unified", "cgroup2")
    big.mount(V1, "cgroup", "rw,memory")
    big.file("/sys/fs/cgroup/unified/job/cgroup.procs", "1")
    limit_v1(big, "/job", 8 * GIB, 3 * GIB)
    assert memory_budget(big.root).available == 5 * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has cgroups")
def test_own_cgroup_on_this_machine_is_found() -> None:
    """The kernel's own list of who is in that directory names this process."""
    for controller in ("cpu", "memory"):
        found = levels(controller)
        if not found:
            pytest.skip(f"no cgroup of the {controller} controller is mounted here")
        for version in {level.version for level in found}:
            own = next(level for level in found if level.version == version)
            members = own.read("cgroup.procs")
            if members is None or "0" in members.split():
                pytest.skip(f"{own.name} does not show its members here")
            assert str(os.getpid()) in members.split()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/meminfo")
def test_this_machine_agrees_with_psutil() -> None:
    psutil = pytest.importorskip("psutil")
    memory = memory_budget()
    assert 0 <= memory.available <= memory.limit <= psutil.virtual_memory().total
    # Others work here at the same time.
    assert memory.available <= psutil.virtual_memory().available + GIB
