# SPDX-License-Identifier: Apache-2.0
"""What `assert_quiesced` says of captures by a stand-in, while a real pool is in each of its states."""

from __future__ import annotations

import functools
import threading
import time

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.capture import CaptureGuard
from pytest_compilepool.records import PoolState
from pytest_compilepool.workloads import jobs


def verdict(guard, *arguments, **options) -> str:
    with pytest.raises(AssertionError) as caught:
        guard.assert_quiesced(*arguments, **options)
    return str(caught.value)


def pids(keys) -> str:
    return ", ".join(str(pid) for pid in sorted(key.pid for key in keys))


def test_a_quiesced_pool_passes(guard, capture, quiesced_pool):
    capture()
    guard.assert_quiesced()
    (look,) = [look for look in guard.captures[0].pools if look.sidecar == quiesced_pool.sidecar.pid]
    assert look.kind == "compile"
    assert look.state is PoolState.QUIESCED
    assert look.processes
    assert (look.workers, look.pending, look.jobs) == ((), 0, ())
    assert "InductorSubproc" in guard.captures[0].threads


def test_a_ready_pool_fails_with_workers_and_stack(guard, capture, ready_pool):
    capture()
    text = verdict(guard)
    first, *rest = text.splitlines()
    assert first == "1 of 1 graph captures did not find the compile pool quiesced: number 1"
    assert f"compile pool READY: 2 workers wait for jobs; sidecar pid {ready_pool.sidecar.pid}" in text
    assert f"workers pid {pids(ready_pool.workers)}; 0 jobs pending" in text
    assert guard.captures[0].pools[0].workers == tuple(sorted(key.pid for key in ready_pool.workers))
    assert "stack of the capture (most recent call last):" in text
    assert "in capture_of_the_test" in text
    assert rest[-1].strip() == "graph.capture_begin()"
    # From the test on; the record itself has all of it.
    assert "in test_a_ready_pool_fails_with_workers_and_stack" in text
    assert "pytest_pyfunc_call" not in text
    assert guard.captures[0].inside("pytest_pyfunc_call")


def test_a_busy_pool_fails_with_its_jobs(guard, capture, ready_pool, tmp_path):
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    waiting = [ready_pool.submit(jobs.touch_and_wait_for, started, go, 30) for _ in range(2)]
    waiting += [ready_pool.submit(jobs.echo, number) for number in range(5)]
    try:
        jobs.wait_for(started, 30)
        capture()
    finally:
        jobs.touch(go)
    for future in waiting:
        future.result(30)
    text = verdict(guard)
    assert "compile pool BUSY: 7 jobs have no result yet" in text
    assert "7 jobs pending" in text
    assert "touch_and_wait_for, pending for 0." in text
    assert "echo, pending for 0." in text
    assert "no worker yet" in text
    assert "and 2 more jobs" in text
    told = {job.worker for job in guard.captures[0].pools[0].jobs} - {None}
    assert told
    assert told <= set(guard.captures[0].pools[0].workers)
    assert all(f"worker pid {pid}" in text for pid in told)


def test_the_kernel_that_is_being_compiled_is_named(guard, capture, ready_pool, tmp_path):
    """Its job has the argument that torch sends with a kernel."""
    from torch._inductor import async_compile

    load = functools.partial(
        async_compile._load_triton_kernel_from_source, "triton_poi_fused_add_0", "its source"
    )
    go = str(tmp_path / "go")
    futures = [
        ready_pool.submit(jobs.touch_and_wait_for, str(tmp_path / f"started{n}"), go, 30)
        for n in range(ready_pool.processes)
    ]
    futures.append(ready_pool.submit(jobs.echo, load))
    try:
        capture()
    finally:
        jobs.touch(go)
    for future in futures:
        future.result(30)
    assert "echo of kernel triton_poi_fused_add_0, pending for 0." in verdict(guard)


def test_only_the_capture_that_came_too_early_is_told(guard, capture, quiesced_pool):
    capture()
    quiesced_pool.wakeup()
    capture()
    text = verdict(guard, at_least=2)
    assert text.startswith("1 of 2 graph captures did not find the compile pool quiesced: number 2\n")
    assert "\ncapture 2 at " in text
    assert "\ncapture 1 at " not in text
    guard.assert_quiesced([record for record in guard.captures if record.number == 1])


def test_many_early_captures_are_told_in_short(guard, capture, ready_pool):
    for _ in range(5):
        capture()
    text = verdict(guard)
    assert text.startswith("5 of 5 graph captures")
    assert "number 1, number 2, number 3, number 4, number 5\n" in text
    assert text.count("stack of the capture") == 3
    assert "\ncapture 5 at " in text


def test_a_capture_in_another_thread(guard, capture, ready_pool):
    thread = threading.Thread(target=capture, name="captures-here")
    thread.start()
    thread.join(30)
    text = verdict(guard)
    assert "(thread captures-here)" in text
    assert "in capture_of_the_test" in text
    assert "in test_a_capture_in_another_thread" not in text


def test_a_wakeup_during_the_capture(guard, capture, quiesced_pool):
    capture(quiesced_pool.wakeup)
    text = verdict(guard)
    assert "compile pool QUIESCED" in text
    assert (
        f"during the capture: workers of the compile pool appeared: pid {pids(quiesced_pool.workers)}" in text
    )


def test_a_job_during_the_capture(guard, capture, quiesced_pool):
    """It is done before the capture ends, and its workers are gone: it was sent all the same."""

    def inside():
        assert quiesced_pool.submit(jobs.add, 1, 2).result(30) == 3
        quiesced_pool.quiesce()

    capture(inside)
    text = verdict(guard)
    assert "during the capture: 1 jobs were sent to the compile pool" in text
    assert "appeared" not in text


def test_a_job_that_still_runs_at_the_end_is_named(guard, capture, quiesced_pool, tmp_path):
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    futures = []

    def inside():
        futures.append(quiesced_pool.submit(jobs.touch_and_wait_for, started, go, 30))
        jobs.wait_for(started, 30)

    capture(inside)
    jobs.touch(go)
    futures[0].result(30)
    assert "1 jobs were sent to the compile pool, among them touch_and_wait_for" in verdict(guard)


def test_a_pool_that_goes_to_sleep_during_the_capture_was_awake_before(guard, capture, ready_pool):
    capture(ready_pool.quiesce)
    assert "compile pool READY" in verdict(guard)
    assert guard.captures[0].during == ()


def test_a_pool_that_another_has_taken_the_place_of(guard, capture, ready_pool):
    """torch does not hold it any more, and its workers live all the same."""
    from pytest_compilepool.torch_compat import registry

    held = registry.take_out()
    try:
        capture()
    finally:
        registry.put_back(held)
        registry.install(ready_pool.torch_pool, held.ready)
    text = verdict(guard)
    assert "compile pool READY: torch does not hold it; sidecar pid" in text
    assert f"workers pid {pids(ready_pool.workers)}" in text


def test_the_look_changes_nothing(guard, capture, quiesced_pool, monkeypatch):
    """Least of all does it send torch's ready probe, which would fork the workers."""
    before = (quiesced_pool.jobs, [event.what for event in quiesced_pool.timeline])
    with monkeypatch.context() as patched:
        # What the facade does when it is looked at: where torch has made another pool, it asks that one.
        patched.setattr(
            type(quiesced_pool), "_follow", lambda self: pytest.fail("the look had it follow torch")
        )
        capture()
        capture()
    guard.assert_quiesced(at_least=2)
    assert quiesced_pool.workers == []
    assert (quiesced_pool.jobs, [event.what for event in quiesced_pool.timeline]) == before


def test_the_look_is_quick(guard, capture, ready_pool):
    """It takes little more than the one thing that it cannot do without; 0.8 ms on an idle machine."""
    reads = []
    for _ in range(20):
        capture()
        began = time.perf_counter()
        proctree.table()
        reads.append(time.perf_counter() - began)
    # The quickest of many is what each takes where nobody is in the way.
    assert min(record.took for record in guard.captures) < 5 * min(reads) + 0.001


def test_one_process_table_is_read_for_all_pools(guard, capture, ready_pool, monkeypatch):
    read, table = [], proctree.table
    monkeypatch.setattr(proctree, "table", lambda: read.append(1) or table())
    capture()
    assert len(read) == 2  # at the beginning and at the end


@pytest.mark.parametrize("when", ["at the beginning", "at the end"])
def test_a_look_that_fails_does_not_break_the_capture(guard, capture, graph_class, monkeypatch, when):
    def no_table():
        raise OSError("planted text")

    def inside():
        monkeypatch.setattr(proctree, "table", no_table)

    if when == "at the beginning":
        inside()
    capture(inside)
    assert (graph_class.begun, graph_class.ended) == (1, 1)
    text = verdict(guard)
    assert text.startswith("1 of 1 graph captures")
    assert "could not look at the pools: " in text
    assert "OSError: planted text" in text
    assert ("at its end: " in text.partition("OSError")[0]) == (when == "at the end")


def test_no_capture_proves_nothing(guard, capture, quiesced_pool):
    text = verdict(guard)
    assert (
        text
        == "0 graph captures were recorded, at least 1 expected: a check that saw no capture proves nothing"
    )
    guard.assert_quiesced(at_least=0)
    capture()
    guard.assert_quiesced()
    assert verdict(guard, at_least=3).startswith("1 graph captures were recorded, at least 3 expected")
    none = [record for record in guard.captures if record.inside("profile_cudagraph_memory")]
    assert "0 graph captures were recorded among those chosen from 1, at least 1" in verdict(guard, none)


def test_a_capture_that_failed_to_begin_does_not_count(guard, graph_class):
    with pytest.raises(OSError, match="planted"):
        graph_class().capture_begin(error=OSError("planted"))
    assert verdict(guard).startswith("0 graph captures were recorded, at least 1 expected")
    assert "it did not begin: OSError: planted" in verdict(guard)
    guard.assert_quiesced(at_least=0)


def test_a_capture_that_failed_to_begin_is_not_judged(guard, graph_class, capture, shared_pool):
    shared_pool.wakeup()
    with pytest.raises(OSError, match="planted"):
        graph_class().capture_begin(error=OSError("planted"))
    shared_pool.quiesce()
    capture()
    guard.assert_quiesced()


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, True])
def test_a_wrong_number_is_refused_in_one_sentence(value):
    with pytest.raises(ValueError, match="at_least=") as caught:
        CaptureGuard().assert_quiesced(at_least=value)
    assert str(caught.value) == f"assert_quiesced: at_least={value!r} is not allowed; allowed: 0, 1, 2, ..."


def test_what_is_no_capture_is_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match=r"^assert_quiesced: captures=7 is not allowed; allowed: some of .captures$"
    ):
        CaptureGuard().assert_quiesced([7])


def test_one_thing_that_is_no_capture_is_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match=r"^assert_quiesced: captures=5 is not allowed; allowed: some of .captures$"
    ):
        CaptureGuard().assert_quiesced(5)


def test_a_capture_that_is_named_twice_is_one(guard, capture):
    capture()
    text = verdict(guard, guard.captures * 2, at_least=2)
    assert "1 graph captures were recorded among those chosen from 1, at least 2 expected" in text
