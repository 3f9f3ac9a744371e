# SPDX-License-Identifier: Apache-2.0
"""Jobs and their results. After everything that goes wrong a second job is sent: that is where most hangs show."""

from __future__ import annotations

import operator
import os
import threading
from concurrent.futures import Future

from pytest_compilepool.conformance.bench import BOUND, Bench, Unanswered, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import hostile, jobs


@feature("submit.runs-in-a-worker")
def test_runs_in_a_worker(bench: Bench) -> None:
    bench.ready()
    pid, parent, started = bench.answer(bench.submit(jobs.whoami))
    check(pid not in (os.getpid(), bench.sidecar), f"the job ran in pid {pid}, which is no worker")
    check(parent == bench.sidecar, f"the job's process is a child of pid {parent}, not of the sidecar")
    check(
        (pid, started) in {(key.pid, key.started) for key in bench.workers()},
        "the job's process is not alive after it",
    )


@feature("submit.each-its-own-result")
def test_each_its_own_result(bench: Bench) -> None:
    bench.ready()
    futures = [bench.submit(jobs.echo, number) for number in range(200)]
    results = [bench.answer(future) for future in futures]
    wrong = [(sent, got) for sent, got in enumerate(results) if sent != got]
    check(not wrong, f"{len(wrong)} of 200 jobs got the result of another: (sent, got) {wrong[:5]}")


@feature("submit.done-once")
def test_done_once(bench: Bench) -> None:
    bench.ready()
    path = bench.file("done")
    futures = [bench.submit(jobs.add_line, path, str(number)) for number in range(50)]
    for future in futures:
        bench.answer(future)
    bench.second_job()
    with open(path, encoding="utf-8") as file:
        done = file.read().split()
    twice = sorted({number for number in done if done.count(number) > 1}, key=int)
    check(not twice, f"{len(twice)} of 50 jobs were done more than once: {twice[:5]}")
    check(len(done) == 50, f"{len(done)} of 50 jobs were done")


@feature("submit.many-threads")
def test_many_threads(bench: Bench) -> None:
    bench.ready()
    results: dict[tuple[int, int], Future[int]] = {}

    def send(thread: int) -> None:
        for number in range(200):
            results[thread, number] = bench.submit(operator.add, thread * 1000, number)

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
        if thread.is_alive():
            raise Unanswered(f"a thread that sends jobs still waits after {BOUND:g} s")
    found = {key: bench.answer(future, 30) for key, future in results.items()}
    wrong = [key for key, value in found.items() if value != key[0] * 1000 + key[1]]
    check(len(found) == 3200, f"{len(found)} of 3200 jobs were sent")
    check(not wrong, f"{len(wrong)} of 3200 jobs got another's result: {wrong[:5]}")


@feature("submit.large-both-ways")
def test_large_both_ways(bench: Bench) -> None:
    bench.ready()
    sent = jobs.big(64 * 2**20)
    check(
        bench.answer(bench.submit(len, sent), 30) == len(sent), "an argument of 64 MiB did not arrive whole"
    )
    check(
        bench.answer(bench.submit(jobs.big, len(sent)), 30) == sent, "a result of 64 MiB did not arrive whole"
    )
    bench.second_job()


@feature("submit.exception-is-told")
def test_exception_is_told(bench: Bench) -> None:
    bench.ready()
    before = set(bench.workers())
    error = bench.error(bench.submit(jobs.fail, "planted: the job fails"))
    check(
        "planted: the job fails" in str(error), f"the error does not have the text of the job's own: {error}"
    )
    check("ValueError" in f"{type(error).__name__} {error}", f"the error does not name ValueError: {error!r}")
    bench.second_job()
    check(
        before & set(bench.workers()) == before, "a worker did not live on after a job had raised ValueError"
    )


@feature("submit.system-exit")
def test_system_exit(bench: Bench) -> None:
    bench.ready()
    bench.error(bench.submit(jobs.raise_system_exit, 3), what="the job that raised SystemExit")
    bench.second_job()


@feature("submit.keyboard-interrupt")
def test_keyboard_interrupt(bench: Bench) -> None:
    bench.ready()
    bench.error(bench.submit(hostile.raise_keyboard_interrupt), what="the job that raised KeyboardInterrupt")
    bench.second_job()


@feature("submit.job-that-cannot-be-pickled")
def test_job_that_cannot_be_pickled(bench: Bench) -> None:
    bench.ready()
    error = bench.error(bench.submit(jobs.echo, threading.Lock()))
    check("pickle" in str(error), f"the error does not say that something cannot be pickled: {error!r}")
    left = bench.requirements.pending(bench.pool)
    check(not left, f"{left} jobs are pending after a job was refused")
    bench.second_job()


@feature("submit.result-that-cannot-be-pickled")
def test_result_that_cannot_be_pickled(bench: Bench) -> None:
    bench.ready()
    error = bench.error(bench.submit(hostile.lock))
    check("pickle" in str(error), f"the error does not say that something cannot be pickled: {error!r}")
    bench.second_job()


@feature("submit.result-that-cannot-be-loaded")
def test_result_that_cannot_be_loaded(bench: Bench) -> None:
    bench.ready()
    error = bench.error(bench.submit(hostile.loads_here_only))
    why = any(word in str(error) for word in ("planted", "deserialize", "loaded"))
    check(why, f"the error does not say that the result cannot be loaded: {error!r}")
    bench.second_job()


@feature("submit.exception-that-cannot-be-loaded")
def test_exception_that_cannot_be_loaded(bench: Bench) -> None:
    bench.ready()
    before = set(bench.workers())
    for job in (hostile.raise_two_arguments, hostile.breaks_its_pickler):
        error = bench.error(bench.submit(job), what=f"the job {job.__name__}")
        check(
            "terminated" not in str(error),
            f"no process has ended, and the error of {job.__name__} says so: {error}",
        )
        told = f"{type(error).__name__} {error}"
        check("planted" in told or "TwoArguments" in told, f"the error does not say what was raised: {told}")
    bench.second_job()
    check(before & set(bench.workers()) == before, "the workers did not live on")


@feature("submit.callback-may-submit")
def test_callback_may_submit(bench: Bench) -> None:
    bench.ready()
    inner: Future[int] = Future()

    def send(future: Future[int]) -> None:
        bench.submit(jobs.add, 1, future.result()).add_done_callback(
            lambda done: inner.set_result(done.result())
        )

    bench.submit(jobs.sleep_then_add, 0.2, 1, 1).add_done_callback(send)
    check(
        bench.answer(inner, what="a job that a callback sent") == 3,
        "the job of a callback got a wrong result",
    )
    bench.second_job()


@feature("submit.callback-that-raises")
def test_callback_that_raises(bench: Bench) -> None:
    bench.ready()

    def leave(_: Future[int]) -> None:
        raise SystemExit("planted")

    future = bench.submit(jobs.sleep_then_add, 0.2, 1, 1)
    future.add_done_callback(leave)
    check(bench.answer(future) == 2, "a job with a callback got a wrong result")
    bench.second_job()
