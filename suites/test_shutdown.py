# SPDX-License-Identifier: Apache-2.0
"""The end of a pool: bounded, without an error, and nothing of it is left."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.conformance import child
from pytest_compilepool.conformance.bench import BOUND, READY, Bench, Unanswered, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.conformance.order import Order
from pytest_compilepool.conformance.subjects import load
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.workloads import jobs

_AT_ONCE = 2.0
_BUSY = 15.0
"""Seconds for a shutdown that has jobs to end."""

_LONG = 55.0
"""Seconds that a job takes which nobody is to wait for: longer than any bound."""

_LOOK = 3.0
"""Seconds in which threads end: one of torch's (2.14) looks every two seconds whether it is to."""

_CHILD = 20.0
"""Seconds in which a child of multiprocessing ends after its last job."""

_SHARED = Path("/dev/shm")


@feature("shutdown.idle")
def test_idle(bench: Bench) -> None:
    bench.ready()
    keys = bench.tree()
    began = time.monotonic()
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    bench.gone(keys, _rest(BOUND, began), "sidecar and workers of an idle pool")
    check(not bench.pool.running, "a pool that was shut down says that it runs")
    bench.note(f"gone after {time.monotonic() - began:.2f} s")


@feature("shutdown.busy")
def test_busy(bench: Bench) -> None:
    bench.ready()
    futures = _make_busy(bench)
    keys = bench.tree()
    began = time.monotonic()
    _shut_down(bench, _BUSY, "shutdown of a pool with two jobs running and four queued")
    for number, future in enumerate(futures):
        what = f"job {number}, which {'ran' if number < 2 else 'was queued'} when the pool was shut down,"
        error = bench.error(future, _AT_ONCE, what)
        told = f"{type(error).__name__}: {error}"
        check(
            _says_closed(told),
            f"{what} ended with an error that does not say that the pool was closed: {told}",
        )
    bench.gone(keys, _rest(_BUSY, began), "processes of a busy pool that was shut down")
    bench.note(f"gone after {time.monotonic() - began:.2f} s")


@feature("shutdown.wedged-worker")
def test_wedged_worker(bench: Bench) -> None:
    bench.ready()
    future = bench.submit(jobs.ignore_sigterm_and_wait, bench.file("at"), _LONG)
    bench.appears("at")
    keys = bench.tree()
    began = time.monotonic()
    _shut_down(bench, _BUSY, "shutdown of a pool whose worker ignores SIGTERM")
    bench.error(future, _AT_ONCE, "the job that ignores SIGTERM")
    bench.gone(keys, _rest(_BUSY, began), "processes of a pool with a worker that ignores SIGTERM")
    bench.note(f"gone after {time.monotonic() - began:.2f} s")


@feature("shutdown.twice")
def test_twice(bench: Bench) -> None:
    bench.ready()
    pool = bench.pool
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    _shut_down(bench, _AT_ONCE, "a second shutdown")
    _bounded(pool.shutdown, _AT_ONCE, "shutdown() of a pool that was shut down")


@feature("shutdown.submit-after-is-refused")
def test_submit_after_is_refused(bench: Bench) -> None:
    bench.ready()
    pool = bench.pool
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    error = bench.error(bench.submit(jobs.add, 1, 1), _AT_ONCE, "a job for a pool that was shut down")
    told = f"{type(error).__name__}: {error}"
    check(_says_closed(told), f"the error does not say that the pool was closed: {told}")
    left = bench.requirements.pending(pool)
    check(not left, f"the pool refused a job with {told!r} and keeps {left} pending")


@feature("shutdown.new-pool-after")
def test_new_pool_after(bench: Bench) -> None:
    bench.ready()
    old = bench.sidecar
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    bench.use(bench.requirements.current())
    try:
        bench.wait_ready(READY)
    except Unanswered:
        raise
    except Exception as error:
        raise AssertionError(
            f"the pool that the next compile is offered says {type(error).__name__}: {error}"
        ) from None
    check(bench.sidecar != old, f"the next pool has the sidecar {old} of the one that was shut down")
    bench.second_job()
    check(bench.requirements.offered(), "the next pool has done a job, and a compile would not use it")


@feature("shutdown.at-exit")
def test_at_exit(bench: Bench) -> None:
    other = bench.other(_run_to_its_end, normally=True)
    other.appears("busy")
    keys = bench.tree()
    check(len(keys) >= 4, f"an interpreter, its sidecar and two workers are {len(keys)} processes: {keys}")
    jobs.touch(str(other.folder / "go"))
    began = time.monotonic()
    status = other.ends(_BUSY, "a program that has run to its end with jobs running")
    said = other.said()
    check(status == 0, f"a program that has run to its end ended with status {status}:\n{said}")
    check("Traceback" not in said and "Exception ignored" not in said, f"it complained as it ended:\n{said}")
    seconds = time.monotonic() - began
    bench.gone(keys, _rest(_BUSY, began), "processes of a program that has run to its end")
    bench.note(f"ended after {seconds:.2f} s")


def _run_to_its_end(bench: Bench) -> None:
    """For another interpreter: its pool has jobs when there is nothing more to do."""
    bench.ready()
    _make_busy(bench)
    jobs.touch(bench.file("busy"))
    jobs.wait_for(bench.file("go"), BOUND)


@feature("shutdown.in-a-multiprocessing-child")
def test_in_a_multiprocessing_child(bench: Bench) -> None:
    # In an interpreter that ends: only then does multiprocessing tell what has leaked.
    other = bench.other(_with_a_child, normally=True)
    status = other.ends(READY + _CHILD + 2 * BOUND, "a program with a child of multiprocessing")
    said = other.said()
    check(status == 0, f"a program with a child of multiprocessing that used a pool: {said}")
    check("leaked" not in said, f"multiprocessing says that something has leaked:\n{said}")
    bench.note((other.folder / "seconds").read_text(encoding="utf-8"))


def _with_a_child(bench: Bench) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_in_a_child, args=(bench.order, str(bench.folder)))
    process.start()

    def at(name: str) -> bool:
        check(
            process.is_alive() or (bench.folder / name).exists(),
            f"the child ended with status {process.exitcode}",
        )
        return (bench.folder / name).exists()

    try:
        bench.until(
            lambda: at("sidecar"), READY, "a child of multiprocessing has not done a job in a pool of its own"
        )
        began = time.monotonic()
        process.join(_CHILD)
        if process.exitcode is None:
            raise Unanswered(
                f"a child of multiprocessing that has used a pool had not ended after {_CHILD:g} s"
            )
    finally:
        if process.exitcode is None:
            process.kill()
    check(process.exitcode == 0, f"the child ended with status {process.exitcode}")
    seconds = time.monotonic() - began
    pid, started = bench.appears("sidecar").split()
    bench.gone(
        [ProcessKey(int(pid), float(started))],
        BOUND,
        "the sidecar of a child of multiprocessing that has ended",
    )
    jobs.touch(bench.file("seconds"), f"the child ended {seconds:.2f} s after its last job")


def _in_a_child(order: Order, folder: str) -> None:
    """For a child of multiprocessing, which ends without atexit."""
    os.environ.pop("COMPILEPOOL_FAULTS", None)
    child.change(order)
    bench = Bench(load(order.requirements)(), order, Path(folder))
    bench.ready()
    bench.second_job()
    row = proctree.lookup(bench.sidecar)
    assert row is not None
    jobs.touch(bench.file("sidecar"), f"{row.key.pid} {row.key.started!r}")


@feature("shutdown.takes-grandchildren")
def test_takes_grandchildren(bench: Bench) -> None:
    bench.ready()
    pid = bench.answer(bench.submit(jobs.spawn_grandchild, bench.file("at"), _LONG))
    row = proctree.lookup(pid)
    check(
        row is not None and not row.dead, f"the process {pid} that a job has started has ended with that job"
    )
    assert row is not None
    _shut_down(bench, BOUND, "shutdown of a pool whose job has started a process")
    bench.gone([row.key], BOUND, "a process that a job had started, after its pool was shut down")


@feature("shutdown.ends-its-threads")
def test_ends_its_threads(bench: Bench) -> None:
    # Those of which `threading` knows nothing, too.
    before = set(sys._current_frames())
    # As it is by default: the timer that waits for an idle minute is one of them.
    bench.ready(2, 60.0 if bench.requirements.idle_timer else None)
    bench.second_job()
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    left: list[str] = []

    def none_left() -> bool:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        left[:] = [names.get(one, f"thread {one}") for one in sys._current_frames() if one not in before]
        return not left

    _within(none_left, _LOOK)
    check(not left, f"threads of the pool that live {_LOOK:g} s after its shutdown: {', '.join(left)}")


@feature("shutdown.gives-back-descriptors")
def test_gives_back_descriptors(bench: Bench) -> None:
    before = _descriptors()
    bench.ready()
    bench.second_job()
    during = len(_descriptors())
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    left: dict[int, str] = {}
    lost: dict[int, str] = {}

    def none_left() -> bool:
        now = _descriptors()
        left.clear()
        left.update({fd: target for fd, target in now.items() if before.get(fd) != target})
        lost.clear()
        lost.update({fd: target for fd, target in before.items() if now.get(fd) != target})
        return not left

    _within(none_left, _AT_ONCE)
    check(not left, f"{len(left)} descriptors of the pool are open {_AT_ONCE:g} s after its shutdown: {left}")
    check(not lost, f"{len(lost)} descriptors that are not the pool's were closed: {lost}")
    bench.note(f"{during - len(before)} while it ran")


@feature("shutdown.gives-back-semaphores")
def test_gives_back_semaphores(bench: Bench) -> None:
    before = _shared()
    bench.ready()
    bench.second_job()
    if bench.requirements.quiesce:
        workers = bench.workers()
        bench.pool.quiesce()
        bench.gone(workers, BOUND, "workers of an idle pool after quiesce()")
        bench.second_job()
    keys = bench.tree()
    _shut_down(bench, BOUND, "shutdown of an idle pool")
    bench.gone(keys, BOUND, "processes of a pool that was shut down")
    others = [f"{key} ({' '.join(proctree.command(key.pid))[-120:]})" for key in bench.tree()]
    check(not others, f"processes below this one that were not there before the pool: {', '.join(others)}")
    # Another program of this user may have made one meanwhile, and holds it.
    _within(lambda: not _shared() - before - _held(), _AT_ONCE)
    left = _shared() - before - _held()
    check(not left, f"shared memory or semaphores that the pool has left in {_SHARED}: {sorted(left)}")


@feature("shutdown.after-quiesce-with-a-running-job")
def test_after_quiesce_with_a_running_job(bench: Bench) -> None:
    bench.ready()
    future = bench.submit(jobs.sleep_after_touch, bench.file("at"), _LONG)
    bench.appears("at")
    keys = bench.tree()
    bench.pool.quiesce()
    began = time.monotonic()
    _shut_down(bench, _BUSY, "shutdown of a pool that was quiesced while a job ran")
    bench.error(future, _AT_ONCE, "the job that ran when the pool was quiesced and shut down")
    bench.gone(keys, _rest(_BUSY, began), "processes of a pool that was quiesced and shut down")
    bench.note(f"gone after {time.monotonic() - began:.2f} s")


def _make_busy(bench: Bench) -> list[Future[Any]]:
    """Two jobs that run, and four that wait for a worker."""
    futures = [bench.submit(jobs.sleep_after_touch, bench.file(f"at{number}"), _LONG) for number in range(2)]
    for number in range(2):
        bench.appears(f"at{number}")
    return futures + [bench.submit(jobs.sleep_then_add, _LONG, 1, 1) for _ in range(4)]


def _shut_down(bench: Bench, within: float, what: str) -> None:
    """End the pool as its users do. Raises Unanswered, or AssertionError for what that raised."""
    _bounded(lambda: bench.requirements.shutdown(bench.pool), within, what)


def _bounded(call: Callable[[], None], within: float, what: str) -> None:
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=run, name="shutdown", daemon=True)
    thread.start()
    thread.join(within)
    if thread.is_alive():
        raise Unanswered(f"{what} had not returned after {within:g} s")
    error = done.exception(0)
    check(error is None, f"{what} raised {type(error).__name__}: {error}")


def _rest(bound: float, began: float) -> float:
    """What is left of a bound, in tenths of a second."""
    return round(max(0.0, bound - (time.monotonic() - began)), 1)


def _says_closed(told: str) -> bool:
    return "close" in told.lower() or "shut down" in told.lower()


def _within(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for it, at most so long."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def _descriptors() -> dict[int, str]:
    """Those of this process that are open, and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed the folder
    return found


def _shared() -> set[str]:
    """This user's files of shared memory, and semaphores that have a name."""
    found = set()
    for file in _SHARED.iterdir():
        try:
            if file.stat().st_uid == os.getuid():
                found.add(str(file))
        except OSError:
            continue  # gone meanwhile
    return found


def _held() -> set[str]:
    """Those of them that a process has mapped or open."""
    found = set()
    for row in proctree.table().values():
        try:
            with open(f"/proc/{row.pid}/maps", encoding="utf-8", errors="replace") as file:
                found |= {line.split(maxsplit=5)[5].strip() for line in file if f" {_SHARED}/" in line}
            for name in os.listdir(f"/proc/{row.pid}/fd"):
                found.add(os.readlink(f"/proc/{row.pid}/fd/{name}"))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found
