# SPDX-License-Identifier: Apache-2.0
"""Real kernels of Inductor's, compiled by way of the pool for a GPU that is not there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pytest_compilepool.conformance.bench import BOUND, READY, Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.conformance.twin import is_forked
from pytest_compilepool.counters.counts import is_measured
from pytest_compilepool.counters.interpreter import interpreter_reader, moved_between
from pytest_compilepool.parity.counts import MAY_DIFFER
from pytest_compilepool.records import JobRecord
from pytest_compilepool.suites.compiling import Compiler, artifacts
from pytest_compilepool.workloads import jobs

_TURN = 60.0
"""Seconds for which a feature waits for another one that compiles the same; then it does so by itself."""

_PROGRAMS = ("pointwise", "softmax", "cumulative_sum")


@feature("kernels.go-through-the-pool")
def test_go_through_the_pool(bench: Bench) -> None:
    from pytest_compilepool.torch_compat.kernels import parallel_feature

    compiler = Compiler(bench)
    compiler.pool()
    launched = compiler.compile("pointwise", "softmax")
    compiler.proved(launched)
    check(
        all(parallel_feature()), f"torch's own witness says that the pool was not used: {parallel_feature()}"
    )
    bench.note(f"{len(launched)} kernels by {len({job.worker for job in compiler.jobs})} workers")


@feature("kernels.same-as-single-threaded")
def test_same_as_single_threaded(bench: Bench) -> None:
    _judge_both(bench, _has_the_same_kernels)


def _has_the_same_kernels(bench: Bench, alone: dict[str, Any], pool: dict[str, Any]) -> None:
    check(
        alone["launched"] == pool["launched"],
        f"other kernels would be launched: {alone['launched']} without a pool, {pool['launched']} with one",
    )
    one, other = alone["artifacts"], pool["artifacts"]
    check(len(one) >= 4, f"without a pool {len(one)} kernels were compiled")
    check(set(one) == set(other), f"kernels that only one side has: {sorted(set(one) ^ set(other))}")
    differ = [f"{name}: {one[name]} and {other[name]}" for name in one if one[name] != other[name]]
    check(not differ, f"{len(differ)} of {len(one)} kernels differ: {differ[:3]}")
    bench.note(f"{len(one)} kernels are the same")


@feature("kernels.same-counters")
def test_same_counters(bench: Bench) -> None:
    _judge_both(bench, _has_the_same_counters)


def _has_the_same_counters(_: Bench, alone: dict[str, Any], pool: dict[str, Any]) -> None:
    for which in ("cold", "warm"):
        differ = {
            name: (alone[which].get(name, 0), pool[which].get(name, 0))
            for name in {*alone[which], *pool[which]}
            if name not in MAY_DIFFER
            and not is_measured(name)
            and alone[which].get(name, 0) != pool[which].get(name, 0)
        }
        check(not differ, f"a {which} start moves counters otherwise (without, with a pool): {differ}")
        check(alone[which], f"a {which} start moves no counter")
    check(pool["jobs"] > 0, "a cold start sent no kernel to the pool")
    check(pool["warm jobs"] == 0, f"a warm start sent {pool['warm jobs']} kernels to the pool")


@feature("kernels.failure-names-the-kernel")
def test_failure_names_the_kernel(bench: Bench) -> None:
    compiler = Compiler(bench)
    compiler.pool()
    workers = set(bench.workers())
    try:
        compiler.compile("broken_kernel")
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    else:
        raise AssertionError("a kernel that does not compile was compiled")
    check(
        any(job.outcome == "failed" for job in compiler.jobs), f"no job of the pool has failed, but: {told}"
    )
    check("never_compiles_kernel" in told, f"the error does not name the kernel: {told}")
    check("planted: this kernel does not compile" in told, f"the error does not name the cause: {told}")
    compiler.proved(compiler.compile("pointwise"), "the next compile")
    check(workers == set(bench.workers()), "a worker did not live on after a kernel that does not compile")


@feature("kernels.worker-death-names-the-kernel")
def test_worker_death_names_the_kernel(bench: Bench) -> None:
    compiler = Compiler(bench)
    compiler.pool()
    killed: list[JobRecord] = []

    def kill() -> None:
        deadline = time.monotonic() + READY
        while not killed and time.monotonic() < deadline:
            killed.extend(job for job in compiler.jobs if job.worker is not None and job.outcome == "pending")
            time.sleep(0.002)
        bench.kill(killed[0].worker or 0)

    # This thread compiles: tensors on a GPU that is not there are one thread's.
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        compiler.compile("softmax")
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    else:
        raise AssertionError("a kernel was compiled, although its worker was killed meanwhile")
    thread.join(BOUND)
    check(
        killed[0].kernel in told,
        f"the worker of the kernel {killed[0].kernel} was killed, and the error is: {told}",
    )
    compiler.proved(compiler.compile("pointwise"), "the next compile")


@feature("kernels.before-ready-are-right")
def test_before_ready_are_right(bench: Bench) -> None:
    compiler = Compiler(bench)
    compiler.unready_pool()
    began = time.monotonic()
    launched = compiler.compile("pointwise")
    took = time.monotonic() - began
    check(took < READY, f"a compile beside a pool that was not ready took {took:.0f} s")
    found = {artifact.kernel for artifact in artifacts() if artifact.binary is not None}
    check(launched and set(launched) <= found, f"launched: {launched}, compiled: {sorted(found)}")
    bench.note(f"{len(compiler.compiled_here)} compiled by the process itself, in {took:.1f} s")
    bench.wait_ready(READY)
    bench.until(compiler.uses_the_pool, READY, "the pool is ready, and the next compile would use it")
    already = len(compiler.compiled_here)
    launched = compiler.compile("softmax")
    check(len(compiler.compiled_here) == already, "the pool is ready, and the process itself compiled")
    done = {job.kernel for job in compiler.jobs if job.outcome == "done"}
    check(set(launched) <= done, f"the pool is ready, and was sent {done} of {launched}")
    bench.second_job()


def _judge_both(bench: Bench, judge: Callable[[Bench, dict[str, Any], dict[str, Any]], None]) -> None:
    """Have it judge what an interpreter without a pool and one with a pool came to.

    Where another feature of this run has found that out, that will do for a promise that is kept; one that is not kept is
    shown by what was found here.
    """
    # Where interpreters are to be new, nothing is shared.
    if not bench.order.shared or bench.order.mutant or not is_forked():
        return judge(bench, *_both(bench))
    found = Path(bench.order.shared, "kernels.json")
    with open(f"{found}.lock", "w", encoding="utf-8") as lock:
        with contextlib.suppress(AssertionError):
            # Freed by the end of whoever has it, too.
            bench.until(lambda: _is_mine(lock), _TURN, "the other feature that compiles the same has done so")
        if found.exists():
            with contextlib.suppress(AssertionError):
                return judge(bench, *json.loads(found.read_text(encoding="utf-8")))
        alone, pool = _both(bench)
        part = Path(bench.file("kernels.json"))
        part.write_text(json.dumps([alone, pool]), encoding="utf-8")
        part.replace(found)
    judge(bench, alone, pool)


def _is_mine(lock: IO[str]) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _both(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an interpreter without a pool came to, and this one with a pool."""
    other = bench.other(_alone)
    compiler = Compiler(bench)
    compiler.pool()
    found = _what_came_of(compiler)
    return json.loads(other.appears("found", READY + BOUND)), found


def _alone(bench: Bench) -> None:
    from pytest_compilepool.torch_compat import conformance

    conformance.alone()
    jobs.touch(bench.file("found"), json.dumps(_what_came_of(Compiler(bench))))


def _what_came_of(compiler: Compiler) -> dict[str, Any]:
    """A cold start and a warm start."""
    reader = interpreter_reader()
    first = reader.read()
    launched = compiler.compile(*_PROGRAMS)
    second, sent = reader.read(), len(compiler.jobs)
    compiler.forget()
    compiler.compile(*_PROGRAMS)
    third, sent_again = reader.read(), len(compiler.jobs) - sent
    # One of the user's, which is asked for on a warm start, too (2.13).
    launched += compiler.compile("own_kernel")
    return {
        "launched": launched,
        "cold": moved_between(reader, first, second),
        "warm": moved_between(reader, second, third),
        "jobs": sent,
        "warm jobs": sent_again,
        "artifacts": _contents(),
    }


def _contents() -> dict[str, list[str]]:
    """By kernel, what was compiled for it, each as one text.

    Not by Triton's hash: that holds the environment of who compiled (which ptxas was found first, torch 2.11), and the
    code does not.
    """
    found: dict[str, list[str]] = {}
    for artifact in artifacts():
        meta = json.loads(artifact.files["json"].read_text(encoding="utf-8"))
        meta.pop("hash", None)
        kinds = [hashlib.sha256(artifact.files[kind].read_bytes()).hexdigest() for kind in ("ptx", "cubin")]
        told = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
        found.setdefault(artifact.kernel, []).append(f"ptx {kinds[0]}, binary {kinds[1]}, launch {told}")
    return {kernel: sorted(texts) for kernel, texts in found.items()}
