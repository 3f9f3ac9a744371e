# SPDX-License-Identifier: Apache-2.0
"""Letting the workers go, and having them again. What counts is the process table, not what the pool says."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.conformance.bench import BOUND, Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.workloads import jobs

_WATCHED = 3.0
"""Seconds for which a pool is watched that is to do nothing."""

_WAKES_A_SECOND = 2
"""torch's workers and sidecar look once in 60 s whether their parent is there, on torch <= 2.9 once a second."""

_IDLE = 1.0
"""Seconds after which a pool with a timer is to quiesce by itself."""

_EDITED = '''
import os, time
VALUE = {value!r}
CHANGED = []

def value(started, go):
    """Returns what this worker has of the module, and its pid; so that another job runs in another worker."""
    from pytest_compilepool.workloads import jobs
    pid = jobs.touch_and_wait_for(started, go, 30)
    return VALUE, list(CHANGED), os.environ.get("COMPILEPOOL_CHANGED"), pid

def change(started, go):
    """Leave traces in this worker."""
    CHANGED.append(os.getpid())
    os.environ["COMPILEPOOL_CHANGED"] = "by a job"
    return value(started, go)
'''


@feature("quiesce.workers-go")
def test_workers_go(bench: Bench) -> None:
    bench.ready()
    before = _all_there(bench)
    seconds = _quiesce(bench, before)
    # A sidecar that goes with its workers needs a moment for it.
    _holds(lambda: _lives(bench.sidecar), 0.3, f"the sidecar {bench.sidecar} has gone with its workers")
    check(not bench.workers(), f"there are workers again that nobody asked for: {_pids(bench.workers())}")
    bench.note(f"workers gone after {seconds * 1000:.0f} ms")


@feature("quiesce.in-flight-jobs-finish")
def test_in_flight_jobs_finish(bench: Bench) -> None:
    bench.ready()
    before = _all_there(bench)
    running = [
        bench.submit(jobs.touch_and_wait_for, bench.file(f"at{n}"), bench.file("go"), 30) for n in range(2)
    ]
    pids = {int(bench.appears(f"at{n}")) for n in range(2)}
    queued = [bench.submit(jobs.echo, number) for number in range(6)]
    bench.pool.quiesce()
    _holds(
        lambda: not any(future.done() for future in [*running, *queued]),
        0.3,
        "a job that waits for a file, or one that is queued behind it, ended by a quiesce",
    )
    jobs.touch(bench.file("go"))
    found = {bench.answer(future, what="a job that ran when the pool was quiesced") for future in running}
    check(
        found == pids,
        f"the jobs began in the workers {sorted(pids)} and say that they ran in {sorted(found)}",
    )
    results = [
        bench.answer(future, what="a job that was queued when the pool was quiesced") for future in queued
    ]
    check(results == list(range(6)), f"the queued jobs 0 to 5 got the results {results}")
    bench.gone(before, BOUND, "the workers, after the last job that they had when the pool was quiesced")
    bench.until(lambda: not bench.workers(), BOUND, "no worker is left after the last job of a quiesced pool")


@feature("quiesce.next-job-wakes")
def test_next_job_wakes(bench: Bench) -> None:
    bench.ready()
    before = _all_there(bench)
    _quiesce(bench, before)
    began = time.monotonic()
    pid, parent, started = bench.answer(bench.submit(jobs.whoami), what="the first job after a quiesce")
    seconds = time.monotonic() - began
    check(ProcessKey(pid, started) not in before, f"the job ran in worker {pid}, which had gone")
    check(
        parent == bench.sidecar,
        f"the job ran in pid {pid}, a child of {parent}, not of the sidecar {bench.sidecar}",
    )
    bench.second_job()
    bench.note(f"first job after {seconds * 1000:.0f} ms")


@feature("quiesce.wakeup-brings-all")
def test_wakeup_brings_all(bench: Bench) -> None:
    bench.ready(3)
    _quiesce(bench, _all_there(bench, 3))
    bench.pool.wakeup()
    woken = {key.pid for key in _all_there(bench, 3, "after wakeup()")}
    futures = [
        bench.submit(jobs.touch_and_wait_for, bench.file(f"at{n}"), bench.file("go"), 30) for n in range(3)
    ]
    pids = {int(bench.appears(f"at{n}")) for n in range(3)}
    jobs.touch(bench.file("go"))
    for future in futures:
        bench.answer(future)
    now = bench.workers()
    check(len(now) == 3, f"a pool of 3 has the workers {_pids(now)} after wakeup() and three jobs")
    check(
        pids == woken,
        f"wakeup() brought the workers {sorted(woken)}; three jobs at once ran in {sorted(pids)}",
    )


@feature("quiesce.never-more-workers")
def test_never_more_workers(bench: Bench) -> None:
    bench.ready()
    _all_there(bench)
    most, futures = 0, []
    for number in range(20):
        futures.append(bench.submit(jobs.sleep_then_add, 0.3, number, number))
        bench.pool.quiesce()
        most = max(most, len(bench.workers()))
    deadline = time.monotonic() + 2 * BOUND
    while not all(future.done() for future in futures) and time.monotonic() < deadline:
        most = max(most, len(bench.workers()))
        time.sleep(0.005)
    found = [bench.answer(future, what=f"job {number} of 20") for number, future in enumerate(futures)]
    check(found == [2 * number for number in range(20)], f"20 jobs, each n + n, got the results {found}")
    check(
        most <= 2, f"a pool of 2 had {most} live workers at one time, after 20 x (a job of 0.3 s, quiesce())"
    )
    bench.until(lambda: not bench.workers(), BOUND, "no worker is left after the last quiesce()")


@feature("quiesce.fifty-cycles")
def test_fifty_cycles(bench: Bench) -> None:
    bench.ready()

    def cycle(number: int) -> None:
        found = bench.answer(bench.submit(jobs.echo, number), what=f"the job of cycle {number}")
        check(found == number, f"the job of cycle {number} got the result {found!r}")
        _quiesce(bench, bench.workers())

    for number in range(5):
        cycle(number)
    # What a generation had is given back a moment after its last worker has gone.
    low = _settled(lambda: _size(bench.sidecar))
    began = time.monotonic()
    for number in range(5, 50):
        cycle(number)
    seconds = time.monotonic() - began
    high = _settled(lambda: _size(bench.sidecar))
    for what, was, now in zip(("descriptors", "threads", "children"), low, high, strict=True):
        check(now <= was, f"the sidecar had {was} {what} after 5 cycles and has {now} after 50")
    bench.note(f"sidecar: {low[0]} descriptors, {low[1]} threads; {seconds / 45 * 1000:.0f} ms a cycle")


@feature("quiesce.idle-costs-nothing")
def test_idle_costs_nothing(bench: Bench) -> None:
    bench.ready()
    workers = _all_there(bench)
    _costs_nothing(bench, bench.tree(), "with its workers idle")
    _quiesce(bench, workers)
    _costs_nothing(bench, bench.tree(), "after a quiesce")


@feature("quiesce.leaves-no-zombies")
def test_leaves_no_zombies(bench: Bench) -> None:
    bench.ready()
    _quiesce(bench, _all_there(bench))
    _no_zombie(bench, "after a quiesce of idle workers")
    future = bench.submit(jobs.sleep_after_touch, bench.file("at"), 0.2)
    bench.appears("at")
    bench.pool.quiesce()
    bench.answer(future, what="a job that ran when the pool was quiesced")
    bench.until(lambda: not bench.workers(), BOUND, "no worker is left after a quiesce with a job")
    _no_zombie(bench, "after a quiesce with a job")


@feature("quiesce.by-itself-when-idle")
def test_by_itself_when_idle(bench: Bench) -> None:
    bench.ready(2, _IDLE)
    short = bench.submit(jobs.add, 1, 1)
    # The timer comes to its end while this one runs.
    long = bench.submit(jobs.sleep_after_touch, bench.file("at"), 2.2 * _IDLE)
    check(bench.answer(short) == 2, "a job got a wrong result")
    pid = int(bench.appears("at"))
    found = bench.answer(long, what="a job that takes longer than the idle time")
    check(found == pid, f"the job that began in worker {pid} says that it ran in {found}")
    bench.until(
        lambda: not bench.workers(), BOUND, f"the workers go after {_IDLE:g} s without a job, here a long one"
    )
    began = time.monotonic()
    bench.second_job()
    check(bench.workers(), "a job got its result, and there is no worker right after it")
    many = len(bench.workers())
    check(many <= 2, f"a pool of 2 has {many} live workers when a job has woken it")
    bench.until(lambda: not bench.workers(), BOUND, f"the workers go after {_IDLE:g} s without a job")
    seconds = time.monotonic() - began
    check(
        seconds >= 0.9 * _IDLE,
        f"the workers went {seconds:.2f} s after a job, with an idle time of {_IDLE:g} s",
    )
    bench.second_job()
    bench.note(f"went {seconds:.2f} s after a job, idle time {_IDLE:g} s")


@feature("quiesce.fresh-workers")
def test_fresh_workers(bench: Bench) -> None:
    # On the import path before the pool is made: what comes later is a feature of its own.
    sys.path.insert(0, str(bench.folder))
    (bench.folder / "edited_by_the_bench.py").write_text(_EDITED.format(value="first"), encoding="utf-8")
    import edited_by_the_bench as module  # type: ignore[import-not-found]

    bench.ready()
    before = _all_there(bench)
    first = _ask_both(bench, module, "change", "first")
    check(
        [one[:1] for one in first] == [("first",)] * 2, f"before the change on disk the workers have {first}"
    )
    check({pid for *_, pid in first} == {key.pid for key in before}, f"not each worker has answered: {first}")
    # Of another length: an equal time of change would hide it from whoever reads the compiled one.
    text = _EDITED.format(value="second, after the change")
    (bench.folder / "edited_by_the_bench.py").write_text(text, encoding="utf-8")
    _quiesce(bench, before)
    for value, changed, variable, pid in _ask_both(bench, module, "value", "second"):
        check(
            value == "second, after the change",
            f"worker {pid} has {value!r} of a module that has changed on disk",
        )
        check(changed == [], f"worker {pid} knows what worker {changed} has put into a module")
        check(
            variable is None,
            f"worker {pid} has a variable of the environment that a job set in another worker",
        )


def _ask_both(bench: Bench, module: ModuleType, function: str, name: str) -> list[Any]:
    """What two jobs answer that run at the same time, so in two workers."""
    job = getattr(module, function)
    futures = [bench.submit(job, bench.file(f"{name}{n}"), bench.file(f"{name}-go")) for n in range(2)]
    for number in range(2):
        bench.appears(f"{name}{number}")
    jobs.touch(bench.file(f"{name}-go"))
    return [bench.answer(future, what=f"a job of the module's {function}()") for future in futures]


def _all_there(bench: Bench, processes: int = 2, when: str = "in a pool that is ready") -> list[ProcessKey]:
    """The workers, as many as were asked for."""
    bench.until(lambda: len(bench.workers()) >= processes, BOUND, f"there are {processes} workers {when}")
    found = bench.workers()
    check(len(found) == processes, f"a pool of {processes} has the workers {_pids(found)} {when}")
    return found


def _quiesce(bench: Bench, workers: list[ProcessKey]) -> float:
    """Let an idle pool's workers go; seconds until they had."""
    began = time.monotonic()
    bench.pool.quiesce()
    bench.gone(workers, BOUND, "workers of an idle pool after quiesce()")
    bench.until(lambda: not bench.workers(), BOUND, "no worker is left after quiesce()")
    return time.monotonic() - began


def _holds(condition: Any, seconds: float, text: str) -> None:
    """For so long. Raises AssertionError with that text."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check(condition(), text)
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    row = proctree.lookup(pid)
    return row is not None and not row.dead


def _no_zombie(bench: Bench, when: str) -> None:
    def zombies() -> list[int]:
        return [row.pid for row in proctree.table().values() if row.parent == bench.sidecar and row.dead]

    deadline = time.monotonic() + BOUND
    while (left := zombies()) and time.monotonic() < deadline:
        time.sleep(0.02)
    check(not left, f"children of the sidecar that have ended and were never waited for, {when}: pids {left}")


def _size(pid: int) -> tuple[int, int, int]:
    """Descriptors, threads and children (dead ones, too) of a process."""
    children = sum(row.parent == pid for row in proctree.table().values())
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")), children


def _settled(read: Any) -> Any:
    """A reading that has been the same for 0.3 s, or the last one after three seconds."""
    deadline = time.monotonic() + 3.0
    last, since = read(), time.monotonic()
    while time.monotonic() < min(since + 0.3, deadline):
        time.sleep(0.02)
        now = read()
        if now != last:
            last, since = now, time.monotonic()
    return last


def _costs_nothing(bench: Bench, keys: list[ProcessKey], when: str) -> None:
    pids = [key.pid for key in keys]
    _settled(lambda: [_wakes(pid) for pid in pids])
    before = {pid: (_ticks(pid), _wakes(pid)) for pid in pids}
    began = time.monotonic()
    time.sleep(_WATCHED)  # the promise is that nothing happens meanwhile
    seconds = time.monotonic() - began
    allowed = _WAKES_A_SECOND * seconds
    figures = []
    for key in keys:
        check(proctree.alive(key), f"{_role(bench, key.pid)} has ended while nobody used the pool, {when}")
        ticks, wakes = _ticks(key.pid) - before[key.pid][0], _wakes(key.pid) - before[key.pid][1]
        check(
            ticks <= 1 and wakes <= allowed,
            f"{_role(bench, key.pid)} of a pool that nobody used for {seconds:.1f} s, {when}, took {ticks} clock ticks "
            f"of CPU time and woke up {wakes} times; at most 1 tick and {allowed:.0f} times are allowed",
        )
        figures.append(wakes)
    bench.note(
        f"{when}: wakes of sidecar{' and others' if len(keys) > 1 else ''} in {seconds:.1f} s: {figures}"
    )


def _role(bench: Bench, pid: int) -> str:
    if pid == bench.sidecar:
        return f"the sidecar {pid}"
    is_worker = pid in [key.pid for key in bench.workers()]
    return f"the {'worker' if is_worker else 'helper process'} {pid}"


def _ticks(pid: int) -> int:
    """CPU time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def _wakes(pid: int) -> int:
    """How often the threads of a process have gone to sleep of their own will, and so were woken."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total


def _pids(keys: Iterable[ProcessKey]) -> str:
    return ", ".join(str(key.pid) for key in keys) or "none"
