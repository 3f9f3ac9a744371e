# SPDX-License-Identifier: Apache-2.0
"""Baselines: written beside the test, one entry at a time; compared; and refused where there is no making sense of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

HOOK = """
import sys, types
from pytest_compilepool.counters import CounterSource

store = sys.modules["store"] = types.ModuleType("store")
store.NUMBERS = {"sold": 0, "took_us": 0}

class Store(CounterSource):
    name = "store"

    def read(self):
        return dict(store.NUMBERS)

def pytest_compilepool_counters(config):
    return [Store()]
"""

TEST = """
import pytest, store

@pytest.mark.parametrize("how", ["cold", "warm"])
def test_sales(compile_counters, how):
    with compile_counters.baseline(f"sales {how}"):
        store.NUMBERS["sold"] += {"cold": 3, "warm": SOLD}[how]
        store.NUMBERS["took_us"] += 17
"""

WRITE = "--compilepool-write-counters"


@pytest.fixture
def sales(inner, pytester):
    """Runs two tests that sell 3 and `sold`; gives what the file has then, too."""

    def run(sold: int, *arguments: str):
        result = inner(TEST.replace("SOLD", str(sold)), "-rs", *arguments, conftest=HOOK)
        path = pytester.path / "compile_counters" / "test_inner.json"
        return result, json.loads(path.read_text()) if path.is_file() else None

    return run


def test_skipped_then_written_then_compared(sales, pytester, monkeypatch):
    result, found = sales(1)
    result.assert_outcomes(skipped=2)
    assert found is None
    skipped = re.search(r"no baseline 'sales warm' for (.*) in (\S+); to write it: (.*)", result.stdout.str())
    key, file, command = skipped.groups()
    assert re.fullmatch(r"torch \d+\.\d+\.\d+, vllm \S+, \w+", key)
    assert Path(file) == pytester.path / "compile_counters" / "test_inner.json"

    # The very command: it writes this entry, and only this one.
    program, *arguments = shlex.split(command)
    assert program == "pytest"
    pytester.run(sys.executable, "-m", "pytest", *arguments, timeout=60).assert_outcomes(passed=1)
    text = Path(file).read_text()
    assert json.loads(text) == {"schema": 1, "baselines": {"sales warm": {key: {"store.sold": 1}}}}
    assert '\n        "store.sold": 1\n' in text

    sales(1, WRITE)[0].assert_outcomes(passed=2)
    result, found = sales(1)
    result.assert_outcomes(passed=2)
    assert found["baselines"]["sales cold"] == {key: {"store.sold": 3}}

    result, _ = sales(2)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"E*CountersDiffer: compile counters differ from {file}, baseline 'sales warm' for {key}:",
            "E*store.sold *1 *3 *5 *+2",
            "E*also moved:",
            "E*store.took_us *17 *34 *+17 *measured",
        ]
    )


def test_what_somebody_else_wrote_stays(sales, pytester):
    key, other = "torch 2.13.0, vllm none, cpu", "torch 1.0.0, vllm 0.9.0, sm90"
    result, found = sales(1, WRITE)
    key = next(iter(found["baselines"]["sales cold"]))
    found["baselines"]["sales cold"] = {key: {"store.sold": 9, "store.gone": 1}, other: {"store.sold": 8}}
    found["baselines"]["of others"] = {other: {}}
    path = pytester.path / "compile_counters" / "test_inner.json"
    path.write_text(json.dumps(found))
    result, _ = sales(1)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*store.sold *9 *+3", "E*store.gone *1 *0 *0 *0"])
    result, found = sales(1, WRITE)
    result.assert_outcomes(passed=2)
    assert found["baselines"] == {
        "of others": {other: {}},
        "sales cold": {key: {"store.sold": 3}, other: {"store.sold": 8}},
        "sales warm": {key: {"store.sold": 1}},
    }
    assert path.read_text() == json.dumps(found, indent=2, sort_keys=True) + "\n"
    assert os.listdir(path.parent) == [path.name]
    # Nothing to change, nothing touched.
    before = path.stat()
    sales(1, WRITE)[0].assert_outcomes(passed=2)
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_written_by_ini_option(sales, pytester):
    pytester.makeini("[pytest]\ncompilepool_write_counters = true\n")
    result, found = sales(1)
    result.assert_outcomes(passed=2)
    assert set(found["baselines"]) == {"sales cold", "sales warm"}


def test_several_workers_write_into_one_file(inner, pytester):
    """Each of 40 entries arrives, though four processes write 10 each as fast as they can."""
    pytest.importorskip("xdist")
    result = inner(
        """
        import pytest, store

        @pytest.mark.parametrize("number", range(4))
        def test_sales(compile_counters, number, tmp_path_factory):
            for turn in range(10):
                with compile_counters.baseline(f"{number} {turn}"):
                    store.NUMBERS["sold"] += number
        """,
        WRITE,
        "-p",
        "xdist",
        "-n4",
        conftest=HOOK,
    )
    result.assert_outcomes(passed=4)
    found = json.loads((pytester.path / "compile_counters" / "test_inner.json").read_text())["baselines"]
    assert {name: [*entry.values()] for name, entry in found.items()} == {
        f"{number} {turn}": [{"store.sold": number} if number else {}]
        for number in range(4)
        for turn in range(10)
    }


def test_one_name_for_two_blocks_is_refused(inner):
    result = inner(
        """
        import store

        def test_one(compile_counters):
            with compile_counters.baseline("sales"):
                store.NUMBERS["sold"] += 1

        def test_two(compile_counters):
            with compile_counters.baseline("sales"):
                store.NUMBERS["sold"] += 2
        """,
        WRITE,
        "-p",
        "no:randomly",
        conftest=HOOK,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*'sales' was not written: *::test_one has just written other counters *"])
