# SPDX-License-Identifier: Apache-2.0
"""Features that share an interpreter and a pool, one after the other: no verdict of one comes from another."""

from __future__ import annotations

import itertools
import json
import os
import textwrap
from pathlib import Path

import pytest
from small_suites import FEATURE, Forked

from pytest_compilepool.conformance.bench import Bench
from pytest_compilepool.conformance.forks import ForkServers
from pytest_compilepool.conformance.joint import Joint
from pytest_compilepool.conformance.manifest import read_manifest
from pytest_compilepool.conformance.mutant import mutant
from pytest_compilepool.conformance.runner import run_feature
from pytest_compilepool.conformance.sequence import in_sequence
from pytest_compilepool.conformance.traces import difference, traces
from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.workloads import jobs

HEAD = """
    import json, os, signal, subprocess, sys, threading, time
    from pathlib import Path
    from pytest_compilepool.conformance.bench import check
    from pytest_compilepool.conformance.feature import feature
    from pytest_compilepool.workloads import jobs

    def tell(bench):
        bench.ready()
        bench.second_job()
        worker = bench.answer(bench.submit(jobs.whoami))
        bench.note(json.dumps({"pid": os.getpid(), "sidecar": bench.sidecar, "worker": worker,
                               "workers": sorted(str(key) for key in bench.workers())}))
        bench.count({"told": 1})
"""
SHARES = FEATURE + "share = true\n"


def suite(**bodies: str) -> dict[str, str]:
    """Manifest and scenarios: a feature `jobs.NAME` for each; those whose name begins with `own` do not share."""
    features, tests = "", textwrap.dedent(HEAD)
    for name, body in bodies.items():
        limit = "limit = 1\n" if name.startswith("hangs") else ""
        features += (FEATURE if name.startswith("own") else SHARES).replace(
            "jobs.add", f"jobs.{name}"
        ) + limit
        tests += (
            f'\n@feature("jobs.{name}")\ndef test_{name}(bench):\n' + textwrap.indent(body, "    ") + "\n"
        )
    return {"features": features, "scenarios": tests}


@pytest.fixture
def sharing(own_suite, pytester, monkeypatch):
    """Run such a suite over the reference pool; the verdicts by name, and what each has told of itself."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)

    def run(*arguments, requirements="small_suites:Forked", **bodies):
        result = own_suite(
            "--compilepool-cell=cell.json",
            *arguments,
            requirements=requirements,
            **suite(**bodies),
        )
        run.said = str(result.stdout)
        cell = read_cell(pytester.path / "cell.json")
        verdicts = {name.partition(".")[2]: one for name, one in cell.results.items()}
        assert set(verdicts) == set(bodies), result.outlines
        notes = {name: one.notes[0] for name, one in verdicts.items() if one.notes}
        told = {name: json.loads(note) for name, note in notes.items() if note.startswith("{")}
        return verdicts, told

    return run


def test_they_share_interpreter_and_sidecar_and_each_has_new_workers(sharing):
    bodies = {"one": "tell(bench)", "own": "tell(bench)", "two": "tell(bench)", "three": "tell(bench)"}
    verdicts, told = sharing(**bodies)
    assert {one.status for one in verdicts.values()} == {"PASS"}
    assert all(len(one.notes) == 1 and one.counters == {"told": 1} for one in verdicts.values())
    shared = [told[name] for name in ("one", "two", "three")]
    assert len({one["pid"] for one in shared}) == len({one["sidecar"] for one in shared}) == 1
    assert told["own"]["pid"] != shared[0]["pid"]
    assert told["own"]["sidecar"] != shared[0]["sidecar"]
    workers = [worker for one in shared for worker in one["workers"]]
    assert len(workers) == len(set(workers)) == 6


def test_nothing_is_shared_where_interpreters_are_to_be_new(sharing):
    _, told = sharing("--compilepool-interpreter=new", one="tell(bench)", two="tell(bench)")
    assert told["one"]["pid"] != told["two"]["pid"]
    assert told["one"]["sidecar"] != told["two"]["sidecar"]


def test_nothing_is_shared_with_a_pool_that_cannot_quiesce(sharing, pytester):
    pytester.makepyfile(rigid="import small_suites\nclass Rigid(small_suites.Forked):\n    quiesce = False\n")
    verdicts, told = sharing(requirements="rigid:Rigid", one="tell(bench)", two="tell(bench)")
    assert {one.status for one in verdicts.values()} == {"PASS"}
    assert told["one"]["pid"] != told["two"]["pid"]


LEAVES = {
    "pending": "bench.submit(jobs.sleep_after_touch, bench.file('at'), 50); bench.appears('at')",
    "environment": "os.environ['LEFT'] = 'x'",
    "folder": "os.chdir('/')",
    "path": "sys.path.append('/nowhere')",
    "module": "Path(bench.file('left.py')).write_text(''); import importlib.util as u\n"
    "spec = u.spec_from_file_location('left', bench.file('left.py'))\n"
    "sys.modules['left'] = u.module_from_spec(spec)",
    "handler": "signal.signal(signal.SIGUSR1, lambda *_: None)",
    "hook": "threading.excepthook = print",
    "thread": "threading.Thread(target=time.sleep, args=(50,), daemon=True).start()",
    "descriptor": "os.pipe()",
    "child": "subprocess.Popen(['sleep', '50'])",
    "affinity": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "sidecar": "bench.kill(bench.sidecar)",
    "shutdown": "bench.requirements.shutdown(bench.pool)",
    "state": "import small_suites; small_suites.Forked.counted += 1",
}


def test_whatever_is_left_the_next_one_does_not_find_it(sharing):
    """Each of them is kept, and ends the interpreter: the next one has another, and a sidecar of its own."""
    if len(os.sched_getaffinity(0)) < 2:
        LEAVES.pop("affinity")
    bodies = {name: f"tell(bench)\n{body}" for name, body in LEAVES.items()}
    verdicts, told = sharing(**bodies, last="tell(bench)", after="tell(bench)")
    assert {name: one.status for name, one in verdicts.items()} == dict.fromkeys(verdicts, "PASS")
    names = [*LEAVES, "last"]
    same = [
        before
        for before, after in itertools.pairwise(names)
        if told[before]["pid"] == told[after]["pid"] or told[before]["sidecar"] == told[after]["sidecar"]
    ]
    assert same == []
    assert told["last"]["pid"] == told["after"]["pid"]
    assert all(len(one.notes) == 1 for one in verdicts.values())


def test_what_fails_there_is_called_so_only_where_it_fails_alone(sharing):
    verdicts, told = sharing(
        first="tell(bench)",
        beside="tell(bench)\ncheck('GuestBench' != type(bench).__name__, 'only beside others')",
        fails="tell(bench)\ncheck(False, f'always, in {type(bench).__name__}')",
        hangs="bench.ready()\ntime.sleep(50)",
        crashes="bench.ready()\nos._exit(3)",
        last="tell(bench)",
    )
    assert {name: one.status for name, one in verdicts.items()} == {
        "first": "PASS",
        "beside": "PASS",
        "fails": "FAIL",
        "hangs": "TIMEOUT",
        "crashes": "CRASH",
        "last": "PASS",
    }
    assert verdicts["beside"].notes[1].startswith("FAIL beside other features: only beside others")
    assert "FAIL: always, in Bench\n" in sharing.said
    assert verdicts["fails"].notes[1].startswith("FAIL beside other features: always, in GuestBench")
    assert "TIMEOUT: the scenario was still at it after 1 s" in sharing.said
    assert verdicts["hangs"].notes == ["CRASH beside other features: the interpreter has ended"]
    assert "CRASH: the interpreter ended with status 3" in sharing.said
    pids = [told[name]["pid"] for name in ("first", "beside", "fails", "last")]
    assert len(set(pids)) == 4


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("bench.ready(3)", "uses one pool of two workers without a timer, made once"),
        ("bench.ready(2, 60.0)", "uses one pool of two workers without a timer, made once"),
        ("bench.ready(); bench.ready()", "uses one pool of two workers without a timer, made once"),
        ("bench.inject(start=77)", "plants no fault: its sidecar is there already"),
        ("bench.other(test_one)", "starts no other interpreter"),
        ("bench.use(bench.pool)", "goes on with no other pool"),
    ],
)
def test_what_only_an_interpreter_of_its_own_has(guest, body, why):
    from pytest_compilepool.conformance.jointchild import NotShared

    with pytest.raises(NotShared, match=why):
        exec(body, {"bench": guest, "test_one": print})


@pytest.fixture
def guest(tmp_path):
    from pytest_compilepool.conformance.jointchild import GuestBench
    from pytest_compilepool.conformance.order import Order

    class Pool:
        def wait_ready(self, timeout):
            pass

    return GuestBench(Forked(), Order("jobs.add", "", "", "", [], 10.0, "a:mutant"), tmp_path, Pool())


def test_a_mutant_is_one_beside_others_too(tmp_path):
    """It is in the process of the pool and in its sidecar, and what it breaks is not kept."""
    (tmp_path / "features.toml").write_text(SHARES)
    feature = read_manifest(tmp_path / "features.toml")["jobs.add"]
    servers = ForkServers()
    place = f"{__name__}:wrong_sum"
    joint = Joint(servers, ["colorsys"], "small_suites:Forked", place)
    scenario = (__name__, "adds")
    try:
        plain = Joint(servers, ["colorsys"], "small_suites:Forked")
        kept = run_feature(feature, *scenario, "small_suites:Forked", joint=plain, forks=None)
        plain.close()
        broken = run_feature(feature, *scenario, "small_suites:Forked", place, joint=joint)
    finally:
        joint.close()
        servers.close()
    assert (kept.status, kept.notes) == ("PASS", [])
    assert broken.status == "FAIL"
    assert broken.notes[0].startswith("FAIL beside other features: the next job gave 43")


@mutant("A sum is wrong.", kills="jobs.add", requirements="small_suites:Forked")
def wrong_sum(side: str) -> None:
    if side == "sidecar":
        jobs.add = lambda *numbers: sum(numbers) + 1


def adds(bench: Bench) -> None:
    bench.ready()
    bench.second_job()


def test_a_pool_that_does_not_wake_is_shared_by_nobody(sharing, pytester):
    pytester.makepyfile(
        asleep="""
        import small_suites
        from reference_pool import ReferencePool

        class Asleep(small_suites.Forked):
            def make(self, processes, idle_seconds):
                ReferencePool.quiesce = lambda self: None
                return super().make(processes, idle_seconds)
        """
    )
    verdicts, told = sharing(requirements="asleep:Asleep", one="tell(bench)", two="tell(bench)")
    assert {one.status for one in verdicts.values()} == {"PASS"}
    assert told["one"]["sidecar"] != told["two"]["sidecar"]
    assert not set(told["one"]["workers"]) & set(told["two"]["workers"])


def test_nothing_of_it_is_left(sharing, pytester, monkeypatch):
    """Neither a process nor a folder, with one process and with several."""
    from pytest_compilepool import proctree

    (pytester.path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(pytester.path / "temporary"))
    _, told = sharing(one="tell(bench)", two="tell(bench)")
    assert told["one"]["pid"] == told["two"]["pid"]
    left = [path.name for path in (pytester.path / "temporary").glob("compilepool-*")]
    assert left == []
    pids = {told["one"]["pid"], told["one"]["sidecar"], *(one["worker"][0] for one in told.values())}
    assert not [pid for pid in pids if (row := proctree.lookup(pid)) is not None and not row.dead]


def test_the_order():
    every = ["hangs1", "short1", "a", "hangs2", "long", "b", "short2", "c", "d"]
    found = in_sequence(
        every,
        lambda one: "hangs" in one,
        lambda one: "short" in one,
        lambda one: 150.0 if one == "long" else 60.0,
    )
    assert found == ["long", "hangs1", "a", "b", "hangs2", "c", "d", "short1", "short2"]
    assert in_sequence(["hangs"], lambda _: True, lambda _: False, lambda _: 1.0) == ["hangs"]
    assert in_sequence([], lambda _: True, lambda _: False, lambda _: 1.0) == []


def test_traces_name_what_has_changed(monkeypatch):
    before = traces({"counted": 1})
    assert difference(before, traces({"counted": 1})) == ""
    assert difference(before, traces({"counted": 2})).startswith("counted were 1 before")
    monkeypatch.setenv("COMPILEPOOL_TRACE", "x")
    changed = difference(before, traces({"counted": 1}))
    assert changed == "the environment were {} before it and are {'COMPILEPOOL_TRACE': 'x'} after it"
