# SPDX-License-Identifier: Apache-2.0
"""With pytest-xdist: workers share what there is, and of one that goes down the controller tells what became."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pytest_compilepool import plugin, proctree
from pytest_compilepool.report.terminal import ERRORS, Summary
from pytest_compilepool.resources import gpu_names

pytest.importorskip("torch")
pytest.importorskip("xdist")

SHARED = """
import os, pathlib, time, pytest

@pytest.mark.parametrize("number", range(4))
def test_has_its_share(compile_pool, number):
    assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == "4"
    pathlib.Path(f"there-{number}").touch()
    deadline = time.monotonic() + 200
    while len(list(pathlib.Path().glob("there-*"))) < 4:   # all four have their pools at the same time
        assert time.monotonic() < deadline, "the others have not come"
        time.sleep(0.02)
    jobs = [compile_pool.submit(os.getpid) for _ in range(20)]
    assert {job.result(90) for job in jobs} <= {key.pid for key in compile_pool.workers}
    assert len(compile_pool.workers) == 2
    pathlib.Path(f"done-{number}").touch()
    while len(list(pathlib.Path().glob("done-*"))) < 4:
        assert time.monotonic() < deadline, "the others have not come so far"
        time.sleep(0.02)
    while not pathlib.Path("seen").exists():   # whoever looks on takes longer than these to go
        assert time.monotonic() < deadline, "nobody has looked"
        time.sleep(0.02)
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_there_are_never_more_workers_than_were_asked_for(tmp_path):
    """Four processes with pools, eight compile workers asked for: eight in all, however they overlap."""
    (tmp_path / "test_shared.py").write_text(SHARED)
    mark = f"COMPILEPOOL_TEST_SHARED={os.getpid()}-{time.monotonic_ns()}"
    name, _, value = mark.partition("=")
    leading = ("PYTEST_", "TORCHINDUCTOR_", "COMPILEPOOL_")
    environment = {key: text for key, text in os.environ.items() if not key.startswith(leading)}
    environment |= {name: value, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = ["-p", "xdist", "-n", "4", "-p", "compilepool", "-p", "no:cacheprovider"]
    session = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *options, "--compilepool-processes=8", "test_shared.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    most, all_there = 0, 0
    deadline = time.monotonic() + 300
    try:
        while session.poll() is None:
            assert time.monotonic() < deadline, "it had not ended after 300 s"
            done = len(list(tmp_path.glob("done-*")))
            most = max(most, found := _workers(name, value))
            if done == 4 and not all_there:
                all_there = found
                (tmp_path / "seen").touch()
            time.sleep(0.05)
        said = session.stdout.read()
    finally:
        session.kill()
        session.wait(10)
        session.stdout.close()
    assert session.returncode == 0, said
    assert "4 passed" in said
    assert (most, all_there) == (8, 8)


def _workers(name: str, value: str) -> int:
    """Compile workers of that session now: processes below a sidecar, which have its command line."""
    rows = proctree.table()
    sidecars = {
        pid
        for pid in rows
        if any("compile_worker" in part for part in proctree.command(pid))
        and proctree.environment_value(pid, name) == value
    }
    return sum(rows[pid].parent in sidecars for pid in sidecars)


def test_the_header_says_what_each_gets(inner):
    result = inner("def test(): pass", "-p", "xdist", "-n", "2", "--compilepool-processes=8")
    result.stdout.fnmatch_lines(["compilepool: torch *, 4 processes (8 // 2 xdist workers), *"])


def test_a_worker_that_goes_down_is_told_of(inner, pytester):
    source = "import os\ndef test_goes(compile_pool):\n    os._exit(7)\n"
    result = inner(source, "-p", "xdist", "-n", "1", "--max-worker-restart=0")
    result.stdout.fnmatch_lines(
        [
            "*worker 'gw0' crashed while running 'test_inner.py::test_goes'*",
            "*xdist workers that went down*",
            "gw0 (pid *) went down in test_inner.py::test_goes; * still there then, and ended",
        ]
    )
    assert result.ret == 1
    assert not list(pytester.path.rglob("sessions/*")), "its record has been told of"


CACHES = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(4))
def test_where(number):
    from pytest_compilepool.torch_compat import cache_roots
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    pathlib.Path(f"seen-{worker}").write_text("\\n".join(cache_roots().values()))
"""


@pytest.mark.parametrize(
    ("options", "tox", "below"),
    [
        (["-n", "2"], "", "gw{}"),
        (["-n", "2"], "py311-torch215", "py311-torch215/gw{}"),
        (["-n", "2"], "../../etc", "gw{}"),
        (["-n", "2", "--compilepool-caches=shared"], "", ""),
        (["-n", "0"], "", ""),
    ],
)
def test_each_worker_has_caches_of_its_own(inner, pytester, options, tox, below):
    root = pytester.path / "root"
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(root), "TOX_ENV_NAME": tox}
    inner(CACHES, "-p", "xdist", *options, environment=environment).assert_outcomes(passed=4)
    found = {path.name: path.read_text().splitlines() for path in pytester.path.glob("seen-*")}
    assert found
    for number in range(2):
        if f"seen-gw{number}" in found:
            assert str(root / below.format(number)) in found[f"seen-gw{number}"]
            assert len(found[f"seen-gw{number}"]) == 3
    if "alone" in str(found):
        assert str(root) in found["seen-alone"]


GPUS = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(6))
def test_where(number):
    pathlib.Path("seen-" + os.environ["PYTEST_XDIST_WORKER"]).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
"""


@pytest.mark.parametrize(
    ("option", "visible", "expected"),
    [
        ("spread", "4,7", ["4", "7", "4"]),
        ("spread", "GPU-8932f937,1,2,3", ["GPU-8932f937", "1", "2"]),
        ("spread", "5", ["5", "5", "5"]),
        ("spread", "", ["", "", ""]),
        ("all", "4,7", ["4,7", "4,7", "4,7"]),
    ],
)
def test_gpus_are_spread(inner, pytester, option, visible, expected):
    """On a machine without one: there the list of the variable is believed."""
    if gpu_names({})[1]:
        pytest.skip("there are GPUs here, and the list names others")
    options = ("-p", "xdist", "-n", "3", "--dist=each", f"--compilepool-gpus={option}")
    result = inner(GPUS, *options, environment={"CUDA_VISIBLE_DEVICES": visible})
    result.assert_outcomes(passed=18)
    seen = [(pytester.path / f"seen-gw{number}").read_text() for number in range(3)]
    assert seen == expected


def test_gpus_that_are_taken_are_not_spread(inner):
    result = inner(
        GPUS,
        *("-p", "xdist", "-n", "1", "--compilepool-gpus=spread"),
        conftest=(
            "import sys, types\n"
            "sys.modules['torch.cuda'] = types.SimpleNamespace(is_initialized=lambda: True)\n"
        ),
        environment={"CUDA_VISIBLE_DEVICES": "4,7"},
    )
    result.assert_outcomes(errors=6)
    result.stdout.fnmatch_lines(["*--compilepool-gpus=spread: this xdist worker had initialised CUDA*"])


def test_a_word_that_says_nothing_of_gpus(inner):
    result = inner("def test(): pass", "--compilepool-gpus=banana")
    assert "--compilepool-gpus: 'banana' is not allowed; allowed: all, spread" in result.stderr.str()


GROUPED = """
import pytest

@pytest.mark.parametrize("number", range(4))
@pytest.mark.xdist_group("one")
def test_it(number, worker_id):
    open(f"ran-{worker_id}", "w").close()
"""


def test_loadgroup_that_does_not_group_is_told(inner, pytester):
    result = inner(GROUPED, "-p", "xdist", "-n", "2", "--dist", "loadgroup")
    result.assert_outcomes(passed=4)
    told = [line for line in result.outlines if "--dist loadgroup does not group" in line]
    if len(list(pytester.path.glob("ran-*"))) == 1:
        assert told == []
    else:
        assert len(told) == 1
        assert "4 tests with @pytest.mark.xdist_group were spread over all workers" in told[0]


def test_what_every_worker_has_to_say_is_said_once(inner):
    environment = {"COMPILEPOOL_STATE": "here"}
    result = inner(GROUPED, "-p", "xdist", "-n", "2", environment=environment)
    told = [line for line in result.outlines if "COMPILEPOOL_STATE" in line]
    assert len(told) == 1
    assert told[0].startswith("compilepool: gw0, gw1: ")


def test_groups_as_xdist_reads_them(inner):
    # What a pytest and an xdist that fit each other do: the group is at the end of the node id, and nothing is told.
    conftest = """
import pytest
from pytest_compilepool import xdist

class Item:
    def __init__(self, nodeid, *groups):
        self.nodeid, self.groups = nodeid, groups
    def iter_markers(self, name):
        return (mark.mark for mark in self.groups)
    def get_closest_marker(self, name):
        return next(iter(self.iter_markers(name)), None)

class Config:
    def __init__(self, loadgroup=True, workers=2):
        self.loadgroup, self.workerinput = loadgroup, {"workerid": "gw0", "workercount": workers}
    def getoption(self, name, default=None):
        return name == "loadgroup" and self.loadgroup

def told(*items, **config):
    return bool(xdist.not_grouped(Config(**config), list(items)))
"""
    source = """
import pytest
from conftest import Item, told

group = pytest.mark.xdist_group

def test_it():
    assert not told()
    assert not told(Item("test.py::a"))
    assert not told(Item("test.py::a@one", group("one")), Item("test.py::b"))
    assert not told(Item("test.py::a@one_two", group("two"), group(name="one")))
    assert not told(Item("test.py::a@default", group()))
    assert told(Item("test.py::a", group("one")))
    assert not told(Item("test.py::a", group("one")), workers=1)
    assert not told(Item("test.py::a", group("one")), loadgroup=False)
    assert told(Item("test.py::a[x@one_two]", group("one")))
    assert told(Item("test.py::a@one", group("one")), Item("test.py::b", group("one")))
"""
    inner(source, conftest=conftest).assert_outcomes(passed=1)


def test_what_a_worker_says_is_bounded_and_has_its_name():
    summary = Summary()
    summary.told_by("gw0", {ERRORS: ["a", "x" * 100_000, "/a/b/c is not used"]})
    summary.told_by("gw1", {ERRORS: ["a", "/a/b"]})
    summary.told_by("gw2", None)
    summary.told_by("gw3", {ERRORS: 7})
    assert summary.of_workers == {
        "a": ["gw0", "gw1"],
        "x" * 4096: ["gw0"],
        "/a/b/c is not used": ["gw0"],
        "/a/b": ["gw1"],
    }


def test_a_node_of_a_config_that_was_only_parsed_is_none_of_ours():
    node = SimpleNamespace(config=SimpleNamespace(stash=pytest.Stash()), workerinput={})
    plugin.pytest_configure_node(node)
    plugin.pytest_testnodedown(node)
    assert node.workerinput == {}


NO_UTF8 = r"""
import os

kept = []

def test_variable():
    os.environ["LEAKB\udcfe"] = "1"

def test_file(tmp_path):
    kept.append(open(bytes(tmp_path) + b"/x\xff", "w"))
"""


def test_names_that_utf8_cannot_hold_are_sent(inner):
    result = inner(NO_UTF8, "-p", "xdist", "-n", "1", "--compilepool-leaks=fail", "-p", "no:randomly")
    said = result.stdout.str()
    assert "INTERNALERROR" not in said
    assert "environ:LEAKB\\udcfe" in said
    assert "/x\\udcff" in said
    assert result.ret == 1
