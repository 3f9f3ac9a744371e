# SPDX-License-Identifier: Apache-2.0
"""CPUs by affinity and by the cgroup quota: laid-out hosts of every kind, and a real affinity."""

from __future__ import annotations

import os

import pytest

from pytest_compilepool.resources import usable_cpus

MINE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
V2 = "/sys/fs/cgroup"
V1 = "/sys/fs/cgroup/cpu,cpuacct"


def v2(host, own: str, mounted: str = "/") -> None:
    host.in_cgroup(f"0::{own}")
    host.mount(V2, "cgroup2", "rw,nsdelegate", mounted)


def v1(host, own: str, mounted: str = "/") -> None:
    host.in_cgroup("9:memory:/elsewhere", f"4:cpu,cpuacct:{own}", "1:name=systemd:/x")
    host.mount(V1, "cgroup", "rw,cpu,cpuacct", mounted)
    host.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory")


def v1_quota(host, folder: str, quota: int, period: int = 100000) -> None:
    host.files(folder, cpu__cfs_quota_us=f"{quota}\n", cpu__cfs_period_us=f"{period}\n")


def test_without_cgroups(host) -> None:
    cpus = usable_cpus(host.root)
    assert (cpus.count, cpus.affinity, cpus.quota) == (MINE, MINE, None)
    assert cpus.source in ("affinity", "os.cpu_count()")


@pytest.mark.parametrize(
    ("text", "quota", "count"),
    [
        ("max 100000", None, MINE),
        ("150000 100000", 1.5, 1),
        ("50000 100000", 0.5, 1),
        ("1000 1000000", 0.001, 1),
        ("100000 100000", 1.0, 1),
        ("199999 100000", 1.99999, 1),
        ("200000 100000", 2.0, min(2, MINE)),
        ("25600000 100000", 256.0, min(256, MINE)),
        ("", None, MINE),
        ("100000", None, MINE),
        ("100000 0", None, MINE),
        ("garbage here", None, MINE),
    ],
)
def test_version_2(host, text: str, quota: float | None, count: int) -> None:
    v2(host, "/work.slice")
    host.file(f"{V2}/work.slice/cpu.max", f"{text}\n")
    cpus = usable_cpus(host.root)
    assert (cpus.quota, cpus.count) == (quota, count)
    if count < MINE:
        assert cpus.source == f"cgroup CPU quota of {quota:g} in {V2}/work.slice"


@pytest.mark.parametrize(
    ("quota_us", "period_us", "quota"), [(-1, 100000, None), (150000, 100000, 1.5), (25000, 50000, 0.5)]
)
def test_version_1(host, quota_us: int, period_us: int, quota: float | None) -> None:
    v1(host, "/docker/abc")
    v1_quota(host, f"{V1}/docker/abc", quota_us, period_us)
    cpus = usable_cpus(host.root)
    assert (cpus.quota, cpus.count) == (quota, MINE if quota is None else 1)


@pytest.mark.parametrize(
    ("levels", "quota"),
    [
        (["max 100000", "max 100000", "max 100000"], None),
        (["120000 100000", "max 100000", "max 100000"], 1.2),
        (["max 100000", "120000 100000", "max 100000"], 1.2),
        (["max 100000", "900000 100000", "30000 20000"], 1.5),
        (["900000 100000", "120000 100000", "300000 100000"], 1.2),
    ],
)
def test_smallest_on_the_way_up(host, levels: list[str], quota: float | None) -> None:
    v2(host, "/a/b/c")
    for folder, text in zip(("/a", "/a/b", "/a/b/c"), levels, strict=True):
        host.file(f"{V2}{folder}/cpu.max", text)
    assert usable_cpus(host.root).quota == quota


def test_neighbours_and_children_do_not_bind(host) -> None:
    v2(host, "/a/b")
    host.file(f"{V2}/a/b/cpu.max", "max 100000")
    for folder in ("/a/bb", "/a/b/c", "/b", "/elsewhere"):
        host.file(f"{V2}{folder}/cpu.max", "100000 100000")
    assert usable_cpus(host.root).quota is None


def test_hybrid_with_the_controller_in_version_1(host) -> None:
    host.in_cgroup("4:cpu,cpuacct:/user.slice", "1:name=systemd:/user.slice", "0::/user.slice")
    host.mount("/sys/fs/cgroup", "tmpfs", "rw,mode=755")
    host.mount("/sys/fs/cgroup/unified", "cgroup2")
    host.mount("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd")
    host.mount(V1, "cgroup", "rw,cpu,cpuacct")
    host.file("/sys/fs/cgroup/unified/user.slice/cgroup.procs", "1")
    v1_quota(host, f"{V1}/user.slice", 110000)
    assert usable_cpus(host.root).quota == 1.1


def test_hybrid_with_the_controller_in_version_2(host) -> None:
    host.in_cgroup("4:memory:/user.slice", "0::/user.slice")
    host.mount("/sys/fs/cgroup/unified", "cgroup2")
    host.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory")
    host.file("/sys/fs/cgroup/unified/user.slice/cpu.max", "110000 100000")
    # No CPU controller here, whatever the file is called.
    v1_quota(host, "/sys/fs/cgroup/memory/user.slice", 50000)
    assert usable_cpus(host.root).quota == 1.1


class TestNamespaces:
    """What /proc/self/cgroup tells is not always a path below the mount."""

    def test_container_with_its_own_namespace(self, host) -> None:
        v2(host, "/")
        host.file(f"{V2}/cpu.max", "150000 100000")
        assert usable_cpus(host.root).quota == 1.5

    def test_container_with_the_hosts_namespace(self, host) -> None:
        """Docker on version 1: the host's path in both, and only the own part is mounted."""
        v1(host, "/docker/abc", mounted="/docker/abc")
        v1_quota(host, V1, 150000)
        assert usable_cpus(host.root).quota == 1.5

    def test_deeper_in_such_a_container(self, host) -> None:
        v1(host, "/docker/abc/job", mounted="/docker/abc")
        v1_quota(host, V1, 350000)
        v1_quota(host, f"{V1}/job", 150000)
        assert usable_cpus(host.root).quota == 1.5

    def test_mount_from_outside_of_the_namespace(self, host) -> None:
        """The mount was made before the namespace: its root is shown as being above ours."""
        v2(host, "/", mounted="/../..")
        host.file(f"{V2}/cpu.max", "150000 100000")
        assert usable_cpus(host.root).quota == 1.5

    def test_process_outside_of_the_namespace(self, host) -> None:
        v2(host, "/../other")
        host.file(f"{V2}/cpu.max", "150000 100000")
        host.file("/sys/fs/other/cpu.max", "100000 100000")
        assert usable_cpus(host.root).quota == 1.5

    def test_another_part_of_the_tree_is_mounted(self, host) -> None:
        v2(host, "/kubepods/pod1/box", mounted="/kubepods/pod1/boxes")
        host.file(f"{V2}/cpu.max", "150000 100000")
        assert usable_cpus(host.root).quota == 1.5

    def test_own_directory_not_visible(self, host) -> None:
        v2(host, "/a/gone")
        host.file(f"{V2}/a/cpu.max", "150000 100000")
        assert usable_cpus(host.root).quota == 1.5

    def test_the_mount_that_holds_us_counts(self, host) -> None:
        host.in_cgroup("0::/a")
        host.mount("/other", "cgroup2", mounted="/b")
        host.mount(V2, "cgroup2", mounted="/")
        host.mount("/third", "cgroup2", mounted="/c")
        host.file("/other/cpu.max", "100000 100000")
        host.file("/third/cpu.max", "100000 100000")
        host.file(f"{V2}/a/cpu.max", "150000 100000")
        assert usable_cpus(host.root).quota == 1.5


def test_mount_point_with_a_blank(host) -> None:
    host.in_cgroup("0::/a:b c")
    host.mount("/my\\040cgroups", "cgroup2")
    host.file("/my cgroups/a:b c/cpu.max", "150000 100000")
    assert usable_cpus(host.root).quota == 1.5


@pytest.mark.parametrize(
    "text", ["", "\n", "nonsense", "0", "0:", "1:cpu", " - cgroup2", "1 2 3 - cgroup2 x rw"]
)
def test_unreadable_tables_mean_no_quota(host, text: str) -> None:
    host.file("/proc/self/cgroup", text)
    host.file("/proc/self/mountinfo", text)
    assert usable_cpus(host.root).quota is None


@pytest.mark.skipif("not hasattr(os, 'sched_setaffinity')", reason="this system has no CPU affinity")
def test_a_real_affinity(elsewhere) -> None:
    code = """
import os
from dataclasses import asdict
from pytest_compilepool.resources import usable_cpus
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
answer = asdict(usable_cpus())
"""
    answer = elsewhere(code)
    assert (answer["count"], answer["affinity"]) == (1, 1)
