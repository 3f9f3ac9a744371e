# SPDX-License-Identifier: Apache-2.0
"""Limits that the kernel really enforces: a cgroup below our own, one child process in it.

Needs the right to make one (root), and a cgroup that is ours to divide: where this process was put
into one by somebody else (a service manager, a job runner), that one is left alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_compilepool.cgroups import Level, levels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has cgroups")

MIB = 1 << 20
MEASURE = """
from dataclasses import asdict
from pathlib import Path
for path in sys.argv[1:2]:
    Path(path, "cgroup.procs").write_text("0")
from pytest_compilepool.resources import memory_budget, usable_cpus
answer = {"cpus": asdict(usable_cpus()), "memory": asdict(memory_budget())}
"""
# Inside a new cgroup and mount namespace, mount the hierarchy again, as container runtimes do.
AS_A_CONTAINER = 'mount -t cgroup -o cpu compilepool "$0" && exec "$@"'


def own_top(controller: str, file: str) -> Level:
    """Our own cgroup, if that is the top of what is mounted and the controller works there; else skip."""
    chains = levels(controller)
    for version, name in ((1, file), (2, "cgroup.subtree_control")):
        chain = [level for level in chains if level.version == version]
        if chain and chain[0].read(name) is not None:
            if version == 2 and controller not in (chain[0].read(name) or "").split():
                continue
            if len(chain) > 1:
                pytest.skip(f"{chain[0].name} belongs to whoever put this process there: not divided here")
            return chain[0]
    pytest.skip(f"no cgroup here has the {controller} controller to hand on")


@pytest.fixture
def make() -> Iterator[Callable[[Path], Path]]:
    """Make a cgroup below another one; removed afterwards, the youngest first."""
    made: list[Path] = []

    def make_below(parent: Path) -> Path:
        path = parent / f"compilepool-test-{uuid.uuid4().hex[:12]}"
        try:
            path.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made below {parent}: {error.strerror}")
        made.append(path)
        return path

    yield make_below
    for path in reversed(made):
        path.rmdir()


def write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        pytest.skip(f"{path} cannot be written: {error.strerror}")


def limit_cpu(level: Level, path: Path, quota_us: int) -> None:
    if level.version == 2:
        write(path / "cpu.max", f"{quota_us} 100000")
    else:
        write(path / "cpu.cfs_period_us", "100000")
        write(path / "cpu.cfs_quota_us", str(quota_us))


@pytest.mark.parametrize(("quota_us", "quota"), [(150000, 1.5), (50000, 0.5)])
def test_cpu_quota(make, elsewhere, quota_us: int, quota: float) -> None:
    top = own_top("cpu", "cpu.cfs_quota_us")
    box = make(top.path)
    limit_cpu(top, box, quota_us)
    cpus = elsewhere(MEASURE, str(box))["cpus"]
    assert (cpus["quota"], cpus["count"]) == (quota, 1)
    assert cpus["affinity"] == 1 or box.name in cpus["source"]


def test_cpu_quota_of_a_cgroup_above(make, elsewhere) -> None:
    top = own_top("cpu", "cpu.cfs_quota_us")
    if top.version == 2:
        pytest.skip("version 2 takes no process in a cgroup whose parent is not set up for it")
    box = make(top.path)
    limit_cpu(top, box, 150000)
    assert elsewhere(MEASURE, str(make(box)))["cpus"]["quota"] == 1.5


def test_no_quota(make, elsewhere) -> None:
    top = own_top("cpu", "cpu.cfs_quota_us")
    cpus = elsewhere(MEASURE, str(make(top.path)))["cpus"]
    assert (cpus["quota"], cpus["count"]) == (None, cpus["affinity"])


def test_cpu_quota_in_a_cgroup_namespace(make, elsewhere, tmp_path) -> None:
    top = own_top("cpu", "cpu.cfs_quota_us")
    if top.version == 2 or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, unshare and a CPU controller of version 1")
    box = make(top.path)
    limit_cpu(top, box, 150000)
    seen = tmp_path / "cgroup"
    seen.mkdir()
    # The shell joins the cgroup first: a namespace takes the cgroup it is made in for its root.
    join = f'echo 0 > {box}/cgroup.procs && exec unshare -C -m sh -c "$0" "$@"'
    before = ("sh", "-c", join, AS_A_CONTAINER, str(seen))
    cpus = elsewhere(MEASURE, before=before)["cpus"]
    assert cpus["quota"] == 1.5
    assert cpus["affinity"] == 1 or cpus["source"] == f"cgroup CPU quota of 1.5 in {seen}"


def test_memory_limit(make, elsewhere) -> None:
    top = own_top("memory", "memory.limit_in_bytes")
    box = make(top.path)
    write(box / ("memory.max" if top.version == 2 else "memory.limit_in_bytes"), str(256 * MIB))
    memory = elsewhere(MEASURE, str(box))["memory"]
    assert memory["limit"] == 256 * MIB
    assert 0 < memory["available"] <= 256 * MIB
    assert box.name in memory["source"]
