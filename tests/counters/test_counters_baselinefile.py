# SPDX-License-Identifier: Apache-2.0
"""One test's baselines, without a session around them: what is in the file, and files that make no sense."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pytest_compilepool.counters import BadBaseline, BadInput, CountersDiffer
from pytest_compilepool.counters.baseline import left_out
from pytest_compilepool.counters.facade import CompileCounters, SessionCounters


@pytest.fixture
def make(mine, tmp_path):
    """Makes what the fixture hands out, to write or to compare, with one machine key."""
    with_key = SessionCounters(lambda: [[mine]])
    with_key.machine.key = lambda: "torch 2.13.0, vllm none, cpu"

    def made(write: bool = False) -> CompileCounters:
        return CompileCounters(
            with_key, list, file=tmp_path / "test_it.py", test="it", command="pytest it", write=write
        )

    return made


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "compile_counters" / "test_it.json"


def run(counters, body, name="name"):
    with counters.baseline(name):
        body()


def text_of(counters: dict[str, object]) -> str:
    entry = {"name": {"torch 2.13.0, vllm none, cpu": counters}}
    return json.dumps({"baselines": entry, "schema": 1}, indent=2)


def test_what_is_left_out(make, mine, file):
    run(make(write=True), lambda: mine.add(things=1, took_us=5, took_s=5))
    assert file.read_text() == text_of({"mine.things": 1}) + "\n"
    run(make(), lambda: mine.add(things=1, took_us=6))
    for name in ("pool.workers_used", "metrics.triton_compile_time_us", "inductor.coordesc_tuning_bench"):
        assert left_out(name)
    for name in ("pool.jobs_done", "pool.in_process_compiles", "inductor.fxgraph_cache_miss"):
        assert not left_out(name)


def test_what_moved_beside_the_baseline_is_a_difference(make, mine, file):
    run(make(write=True), lambda: mine.add(things=1))
    with pytest.raises(CountersDiffer, match=r"mine\.cache_hit +unchanged +2 +3 +\+1"):
        run(make(), lambda: mine.add(things=1, cache_hit=1))
    with pytest.raises(CountersDiffer, match=r"mine\.things +1 +\d+ +\d+ +0"):
        run(make(), lambda: None)


def test_a_block_that_raises_writes_nothing(make, mine, file):
    with pytest.raises(ZeroDivisionError):
        run(make(write=True), lambda: 1 / 0)
    assert not file.exists()


@pytest.mark.parametrize("wrong", ["cleared", "failed"])
def test_what_cannot_be_told_is_not_written(make, mine, file, wrong):
    def body():
        if wrong == "cleared":
            mine.numbers["things"] = 0
        else:
            mine.error = OSError("gone")

    said = {"cleared": "mine.things cleared meanwhile", "failed": "read() raised OSError: gone"}[wrong]
    with pytest.raises(BadBaseline, match=f"test_it.json: 'name' was not written: .*{re.escape(said)}"):
        run(make(write=True), body)
    assert not file.exists()


GOOD = text_of({"mine.things": 1, "mine.cache_hit": 2})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "not JSON, or cut off: Expecting value"),
        (GOOD[: GOOD.index("2\n")], 6, "not JSON, or cut off: Expecting value"),
        ("<<<<<<< HEAD\n" + GOOD, 1, "not JSON, or cut off: Expecting value"),
        ("[1]", 1, "schema None is not known; allowed: 1"),
        (GOOD.replace('"schema": 1', '"schema": 2'), 10, "schema 2 is not known; allowed: 1"),
        (GOOD.replace('"schema": 1', '"schema": true'), 10, "schema True is not known; allowed: 1"),
        (
            GOOD.replace("2\n", "2.0\n"),
            6,
            "mine.cache_hit: 2.0 is not allowed; allowed: a whole number from 0",
        ),
        (
            GOOD.replace("2\n", '"2"\n'),
            6,
            "mine.cache_hit: '2' is not allowed; allowed: a whole number from 0",
        ),
        (
            GOOD.replace("2\n", "true\n"),
            6,
            "mine.cache_hit: True is not allowed; allowed: a whole number from 0",
        ),
        (GOOD.replace("2\n", "-2\n"), 6, "mine.cache_hit: -2 is not allowed; allowed: a whole number from 0"),
        (GOOD.replace("cache_hit", "things"), 6, "'mine.things' stands there twice"),
        ('{"schema": 1,\n"baselines": []}', 2, "baselines: [] is not allowed; allowed: a JSON object"),
        ('{"schema": 1,\n"baselines":\n {"name": 3}}', 3, "name: 3 is not allowed; allowed: a JSON object"),
        (
            '{"schema": 1, "baselines":\n {"name":\n {"key": null}}}',
            3,
            "key: None is not allowed; allowed: a JSON",
        ),
        ("[" * 100_000, None, "not what pytest-compilepool writes: nested too deeply"),
        (
            GOOD.replace("2\n", "9" * 5000 + "\n"),
            None,
            "not what pytest-compilepool writes: Exceeds the limit",
        ),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_makes_no_sense(make, file, text, line, said, write):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(BadBaseline) as caught:
        run(make(write), lambda: pytest.fail("the block was run"))
    where = f"{file}:" if line is None else f"{file}:{line}:"
    assert str(caught.value).startswith(f"{where} {said}"), str(caught.value)
    assert file.read_text() == text


def test_a_file_that_is_no_text(make, file):
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadBaseline, match=f"{file}: cannot be read: 'utf-8' codec"):
        run(make(), lambda: None)


def test_a_place_where_nothing_can_be_written(make, mine, file, tmp_path):
    file.parent.write_text("a file where the folder would be")
    with pytest.raises(BadBaseline) as caught:
        run(make(write=True), lambda: mine.add(things=1))
    assert str(caught.value) == f"{file}: cannot be read: Not a directory: {file}"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may write")
def test_a_folder_that_is_read_only(mine):
    shared = SessionCounters(lambda: [[mine]])
    counters = CompileCounters(
        shared, list, file=Path("/proc/self/test_it.py"), test="it", command="pytest it", write=True
    )
    with pytest.raises(
        BadBaseline, match=r"test_it\.json: cannot be written: \w.*compile_counters$"
    ) as caught:
        run(counters, lambda: mine.add(things=1))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write anywhere")
def test_a_folder_without_leave_to_write(make, mine, file):
    run(make(write=True), lambda: mine.add(things=1))
    before = file.read_text()
    file.parent.chmod(0o555)
    try:
        with pytest.raises(BadBaseline, match="cannot be written: Permission denied"):
            run(make(write=True), lambda: mine.add(things=2))
    finally:
        file.parent.chmod(0o755)
    assert file.read_text() == before


def test_a_lock_that_is_held_is_waited_for_and_not_for_ever(file):
    fcntl = pytest.importorskip("fcntl")
    from pytest_compilepool.counters.baselinefile import read_file, write_entry

    file.parent.mkdir()
    fd = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(
            BadBaseline, match=r"another process has held the lock .* for 0\.1 s; nothing was"
        ):
            write_entry(file, "name", "key", {"a.b": 1}, timeout=0.1)
        assert not file.exists()
    finally:
        os.close(fd)
    assert write_entry(file, "name", "key", {"a.b": 1}, timeout=0.1)
    assert read_file(file) == {"name": {"key": {"a.b": 1}}}


def test_a_link_leads_to_the_file_that_is_meant(make, mine, file, tmp_path):
    real = tmp_path / "elsewhere.json"
    real.write_text('{"schema": 1, "baselines": {}}')
    file.parent.mkdir()
    file.symlink_to(real)
    run(make(write=True), lambda: mine.add(things=1))
    assert file.is_symlink()
    assert real.read_text() == text_of({"mine.things": 1}) + "\n"


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "x" * 201, 3, None, "tab\t"])
def test_a_name_that_cannot_be_meant(make, name):
    with pytest.raises(BadInput, match="is not allowed; allowed: a name of 1 to 200 printable characters"):
        make().baseline(name)


def test_a_file_that_is_none_does_not_block(make, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(file)
    with pytest.raises(BadBaseline, match="is no regular file"):
        run(make(), lambda: None)


def test_a_byte_order_mark_is_read_over(make, mine, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(GOOD, encoding="utf-8-sig")
    run(make(), lambda: mine.add(things=1, cache_hit=2))
