# SPDX-License-Identifier: Apache-2.0
"""The folders that kernels are compiled into: many writers, no folder, another folder."""

from __future__ import annotations

import fnmatch
import os
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pytest_compilepool.conformance.bench import BOUND, Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.parity.artifacts import Artifact
from pytest_compilepool.suites.compiling import Compiler, artifacts
from pytest_compilepool.workloads import jobs, triton_kernels

_COMPILE = 30.0
"""Seconds for a compile in a worker that may have to import Triton first."""


@feature("caches.concurrent-writers")
def test_concurrent_writers(bench: Bench) -> None:
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    bench.ready(4)
    started = [f"started{number}" for number in range(4)]
    futures = [
        bench.submit(jobs.compile_after, bench.file(name), bench.file("go"), "softmax", _COMPILE)
        for name in started
    ]
    for name in started:
        bench.appears(name, _COMPILE)
    jobs.touch(bench.file("go"))
    found = [bench.answer(future, _COMPILE, "one of four compiles of a kernel") for future in futures]
    pids = {one["pid"] for one in found}
    check(len(pids) == 4, f"four jobs that wait for each other ran in {len(pids)} processes")
    _one_and_the_same(found)
    made = artifacts(folder)
    check(len(made) == 1, f"four compiles of one kernel left {len(made)} kernels in {folder}: {made}")
    _whole(made)
    again = bench.answer(bench.submit(triton_kernels.compile_kernel, "softmax"), _COMPILE)
    check(again["cached"], "a fifth compile has not found the kernel in the cache folder")
    _one_and_the_same([*found, again])
    bench.note(f"{sum(not one['cached'] for one in found)} of 4 compiled, the others found it")


@feature("caches.killed-writer")
def test_killed_writer(bench: Bench) -> None:
    bench.ready(2)
    elsewhere = bench.submit(triton_kernels.compile_kernel, "softmax", cache_dir=bench.file("elsewhere"))
    expected = bench.answer(elsewhere, _COMPILE)
    killed = 0
    # At the first file, at the binary, and at the one that says which files belong together, which is the last.
    for number, pattern in enumerate(("*.*", "*.cubin", "__grp__*")):
        started, go = f"started{number}", f"go{number}"
        future = bench.submit(jobs.compile_after, bench.file(started), bench.file(go), "softmax", _COMPILE)
        pid = int(bench.appears(started, _COMPILE))
        jobs.touch(bench.file(go))
        _until_written(bench, future, pattern)
        if not future.done():
            bench.kill(pid)
            killed += 1
            bench.error_of(
                future, BOUND, "the job of a worker that was killed while it wrote to the cache folder"
            )
            _reaped(bench, pid)
    check(killed, "no writer could be killed before it had answered: this shows nothing")
    bench.note(f"{killed} of 3 writers killed before they had answered")
    again = bench.answer(bench.submit(triton_kernels.compile_kernel, "softmax"), _COMPILE)
    _one_and_the_same([expected, again])
    _whole(artifacts())


@feature("caches.deleted-while-in-use")
def test_deleted_while_in_use(bench: Bench) -> None:
    compiler = Compiler(bench)
    compiler.pool()
    compiler.compile("pointwise")
    _whole(artifacts())
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        shutil.rmtree(os.environ[name])
    compiler.forget()
    # What a worker has compiled before it may still have; what it has not must be made.
    compiler.proved(compiler.compile("pointwise"), "the same compile after the cache folders were removed")
    launched = compiler.compile("softmax")
    compiler.proved(launched, "a compile after the cache folders were removed")
    made = artifacts()
    check(
        set(launched) <= {artifact.kernel for artifact in made},
        f"of {launched} the new cache folder has {[artifact.kernel for artifact in made]}",
    )
    _whole(made)


@feature("caches.unwritable-folder")
def test_unwritable_folder(bench: Bench) -> None:
    bench.ready()
    plain = bench.file("plain")
    jobs.touch(plain, "no folder")
    bad = f"{plain}/triton"
    error = bench.error(
        bench.submit(triton_kernels.compile_kernel, "add", cache_dir=bad),
        _COMPILE,
        "a compile into a folder that cannot be made",
    )
    check(plain in str(error), f"the error does not name the path {bad}: {type(error).__name__}: {error}")
    bench.answer(bench.submit(triton_kernels.compile_kernel, "add", cache_dir=bench.file("good")), _COMPILE)
    _whole(artifacts(bench.file("good")))


@feature("caches.follow-the-parent")
def test_follow_the_parent(bench: Bench) -> None:
    compiler = Compiler(bench)
    compiler.pool()
    compiler.compile("pointwise")
    old = Path(os.environ["TRITON_CACHE_DIR"])
    before = {artifact.hash for artifact in artifacts(old)}
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = bench.file("other-inductor")
    os.environ["TRITON_CACHE_DIR"] = bench.file("other-triton")
    compiler.forget()
    launched = compiler.compile("softmax")
    compiler.proved(launched, "a compile after the cache folders were changed")
    stray = {artifact.hash for artifact in artifacts(old)} - before
    check(not stray, f"{len(stray)} kernels were compiled into the old cache folder {old}")
    made = artifacts(bench.file("other-triton"))
    check(
        set(launched) <= {artifact.kernel for artifact in made},
        f"of {launched} the new cache folder has {[artifact.kernel for artifact in made]}",
    )
    _whole(made)


def _until_written(bench: Bench, future: Future[Any], pattern: str) -> None:
    """Wait for such a file in the cache folder, or for the end of the job."""
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    bench.until(
        lambda: future.done() or _is_written(folder, pattern),
        BOUND,
        f"a compile writes {pattern} into the cache folder",
    )


def _is_written(folder: Path, pattern: str) -> bool:
    """Whether it is there under its own name.

    Not by Path.rglob, which fails when one of Triton's temporary folders goes while it looks into it.
    """
    return any(
        fnmatch.filter(files, pattern)
        for room, _, files in os.walk(folder)
        if not Path(room).name.startswith("tmp.")
    )


def _reaped(bench: Bench, pid: int) -> None:
    """Wait until a worker is no more: it may have answered just before, and the next job is not to be given to it."""
    bench.until(
        lambda: not Path(f"/proc/{pid}").exists(), BOUND, f"the killed worker {pid} has been waited for"
    )


def _one_and_the_same(found: list[triton_kernels.Compiled]) -> None:
    for what in ("hash", "ptx_sha256", "binary_bytes"):
        values = {str(one[what]) for one in found}
        check(len(values) == 1, f"{what} of one kernel, compiled several times: {sorted(values)}")


def _whole(made: list[Artifact]) -> None:
    """They have all their files, with something in each."""
    check(made, "there is no kernel in the cache folder")
    for artifact in made:
        missing = {"json", "ttir", "ttgir", "ptx", "cubin"} - set(artifact.files)
        empty = [kind for kind, path in artifact.files.items() if not path.stat().st_size]
        check(
            not missing and not empty,
            f"kernel {artifact.kernel} in the cache folder: missing {sorted(missing)}, empty {empty}",
        )
