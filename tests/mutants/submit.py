# SPDX-License-Identifier: Apache-2.0
"""Wrong answers."""

from __future__ import annotations

import os
import pickle
from typing import Any

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "The results of two jobs are exchanged.",
    kills=("submit.each-its-own-result", "submit.many-threads"),
    requirements=REFERENCE,
)
def result_to_the_wrong_job(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, sidecar

        real = sidecar.Sidecar.tell
        last: list[bytes] = []

        def tell(self: sidecar.Sidecar, kind: int, number: int, payload: bytes) -> None:
            if kind == frames.RESULT:
                last.append(payload)
                payload = last[-2] if len(last) % 2 == 0 else payload
            real(self, kind, number, payload)

        sidecar.Sidecar.tell = tell


@mutant(
    "A job is done in the process that sends it.",
    kills=("submit.runs-in-a-worker", "warm.ready-when-a-worker-answered"),
    requirements=REFERENCE,
)
def done_in_the_parent(side: str) -> None:
    if side == "parent":
        from concurrent.futures import Future

        from reference_pool import ReferencePool

        def submit(self, function, *args, **kwargs):
            future = Future()
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
            return future

        ReferencePool.submit = submit


@mutant("What a job raises is its result.", kills="submit.exception-is-told", requirements=REFERENCE)
def exception_as_a_result(side: str) -> None:
    if side == "sidecar":
        from reference_pool import frames, worker

        real = worker.run

        def run(payload: bytes) -> tuple[int, bytes]:
            kind, answer = real(payload)
            return (
                (kind, answer)
                if kind == frames.RESULT
                else (frames.RESULT, pickle.dumps(pickle.loads(answer)[0]))
            )

        worker.run = run


def _end_when_it_raises(pickler, data):
    try:
        return pickler.dumps(pickler.loads(data)())
    except Exception:
        os._exit(1)


@mutant("A worker ends when its job raises.", kills="submit.exception-is-told", requirements=TORCH)
def worker_ends_on_an_exception(side: str) -> None:
    if side == "sidecar":
        from torch._inductor.compile_worker import subproc_pool

        # By name: the executor pickles it.
        subproc_pool.SubprocMain.do_job = staticmethod(_end_when_it_raises)


@mutant("Every thousandth job is forgotten.", kills="submit.many-threads", requirements=REFERENCE)
def every_thousandth_job_is_forgotten(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool._send

        def send(self: Any, kind: int, number: int = 0, payload: bytes = b"") -> None:
            if number == 0 or number % 1000:
                real(self, kind, number, payload)

        ReferencePool._send = send


@mutant("A large frame is cut.", kills="submit.large-both-ways", requirements=REFERENCE)
def large_frames_are_cut(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.dump
        worker.dump = lambda value: real(value[: 2**20] if isinstance(value, bytes) else value)


@mutant(
    "What is no Exception ends the worker's loop without an answer.",
    kills=("submit.system-exit", "submit.keyboard-interrupt"),
    requirements=REFERENCE,
)
def only_exceptions_are_caught(side: str) -> None:
    if side == "sidecar":
        import time

        from reference_pool import worker

        real = worker.explain

        def explain(error: BaseException) -> bytes:
            if not isinstance(error, Exception):
                time.sleep(600)
            return real(error)

        worker.explain = explain


@mutant("SystemExit of a job is its result.", kills="submit.system-exit", requirements=REFERENCE)
def system_exit_is_a_result(side: str) -> None:
    _as_a_result(side, SystemExit)


@mutant(
    "KeyboardInterrupt of a job is its result.", kills="submit.keyboard-interrupt", requirements=REFERENCE
)
def keyboard_interrupt_is_a_result(side: str) -> None:
    _as_a_result(side, KeyboardInterrupt)


def _as_a_result(side: str, kind: type[BaseException]) -> None:
    if side == "sidecar":
        from reference_pool import frames, worker

        real = worker.run

        def run(payload: bytes) -> tuple[int, bytes]:
            answer = real(payload)
            told = pickle.loads(answer[1]) if answer[0] == frames.ERROR else None
            return (frames.RESULT, pickle.dumps(None)) if told and kind.__name__ in str(told[0]) else answer

        worker.run = run


@mutant(
    "A job that cannot be pickled stays pending.",
    kills="submit.job-that-cannot-be-pickled",
    requirements=REFERENCE,
)
def a_refused_job_stays_pending(side: str) -> None:
    if side == "parent":
        from concurrent.futures import Future

        from reference_pool import ReferencePool

        real = ReferencePool.submit

        def submit(self: Any, *job: Any) -> Any:
            try:
                return real(self, *job)
            except Exception:
                self.pending[10**6] = Future()
                raise

        ReferencePool.submit = submit


@mutant(
    "A result that cannot be pickled is None.",
    kills="submit.result-that-cannot-be-pickled",
    requirements=REFERENCE,
)
def an_unpicklable_result_is_none(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        def dump(value: Any) -> bytes:
            try:
                return pickle.dumps(value)
            except TypeError:
                return pickle.dumps(None)

        worker.dump = dump


@mutant(
    "A result that cannot be loaded ends the thread that reads.",
    kills="submit.result-that-cannot-be-loaded",
    requirements=REFERENCE,
)
def the_reader_dies_of_a_result(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, frames, pool

        def hear(self: Any, kind: int, number: int, payload: bytes) -> None:
            if kind == frames.READY:
                self.ready.set_result(number)
                return
            value = pickle.loads(payload)
            future = self.pending.pop(number)
            pool.settle(future, None if kind == frames.RESULT else value[0], value)

        ReferencePool._hear = hear


@mutant(
    "An exception that cannot be loaded ends its worker.",
    kills="submit.exception-that-cannot-be-loaded",
    requirements=REFERENCE,
)
def a_worker_ends_of_its_exception(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        def explain(error: BaseException) -> bytes:
            text = pickle.dumps((error, ""))
            try:
                pickle.loads(text)
            except TypeError:
                os._exit(1)
            return text

        worker.explain = explain


@mutant(
    "Callbacks are called with the lock held.", kills="submit.callback-may-submit", requirements=REFERENCE
)
def callbacks_under_the_lock(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        real = ReferencePool._hear

        def hear(self: Any, kind: int, number: int, payload: bytes) -> None:
            future = self.pending.get(number)
            if future is None:
                real(self, kind, number, payload)
                return
            with self.lock:
                self.pending.pop(number)
                value = pickle.loads(payload)
                future.set_result(value) if kind == 1 else future.set_exception(value[0])

        ReferencePool._hear = hear


@mutant(
    "What a callback raises ends the thread that reads.",
    kills="submit.callback-that-raises",
    requirements=REFERENCE,
)
def the_reader_dies_of_a_callback(side: str) -> None:
    if side == "parent":
        from reference_pool import pool

        def settle(future: Any, error: BaseException | None, value: Any = None) -> None:
            future.set_result(value) if error is None else future.set_exception(error)

        pool.settle = settle


@mutant("Each job is done twice.", kills="submit.done-once", requirements=REFERENCE)
def done_twice(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.run

        def run(payload: bytes) -> tuple[int, bytes]:
            real(payload)
            return real(payload)

        worker.run = run
