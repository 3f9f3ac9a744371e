# SPDX-License-Identifier: Apache-2.0
"""What a worker knows of the process that sends the job: modules, the script, the environment, settings."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.suites.compiling import Compiler, artifacts
from pytest_compilepool.workloads import jobs

_MODULE = '''"""A module of the user's."""


def answer():
    """Says where it came from."""
    return "the user's", __file__
'''

_SCRIPT = '''"""A script of the user's."""


def double(number):
    """Returns two times a number."""
    return number * 2


if __name__ == "__main__":
    bench.ready()
    future = bench.submit(double, 21)
    bench.note(str(bench.answer(future, what="a function of the script")))
'''

_OUTER, _INNER = "COMPILEPOOL_CHECK_OUTER", "TRITON_PTXAS_PATH"


@feature("knows.sys-path")
def test_sys_path(bench: Bench) -> None:
    folder = _folder(bench)
    sys.path.insert(0, str(folder))
    bench.ready()
    _its_own(bench, folder, "compilepool_before")


@feature("knows.late-sys-path")
def test_late_sys_path(bench: Bench) -> None:
    folder = _folder(bench)
    bench.ready()
    sys.path.insert(0, str(folder))
    _its_own(bench, folder, "compilepool_after")


@feature("knows.module-names")
def test_module_names(bench: Bench) -> None:
    folder = _folder(bench)
    sys.path.insert(0, str(folder))
    bench.ready()
    for name in ("utils", "timer", "watchdog"):
        _its_own(bench, folder, name)


@feature("knows.main-module")
def test_main_module(bench: Bench) -> None:
    script = _folder(bench) / "compilepool_script.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    # As `python script.py` has it: the module __main__ is the script while this runs, and until the answer is there.
    runpy.run_path(str(script), {"bench": bench}, "__main__")
    check(bench.notes == ["42"], f"a function of the script gave {bench.notes} and not 42")


@feature("knows.environment-at-start")
def test_environment_at_start(bench: Bench) -> None:
    os.environ[_OUTER] = "set before"
    bench.ready()
    _seen(bench, _OUTER, "set before")


@feature("knows.late-environment")
def test_late_environment(bench: Bench) -> None:
    bench.ready()
    os.environ[_INNER] = bench.file("ptxas")
    _seen(bench, _INNER, bench.file("ptxas"))
    os.environ.pop(_INNER)
    _seen(bench, _INNER, None)


@feature("knows.environment-of-the-last-job")
def test_environment_of_the_last_job(bench: Bench) -> None:
    compiler = Compiler(bench)
    compiler.pool()
    # The other worker is kept busy: both kernels are one worker's.
    busy = bench.submit(jobs.touch_and_wait_for, bench.file("busy"), bench.file("go"), 60)
    bench.appears("busy")
    old = os.environ["TRITON_CACHE_DIR"]
    compiler.compile("pointwise")
    before = {artifact.hash for artifact in artifacts(old)}
    # Without the first of them, Triton's folder is one below the second.
    os.environ.pop("TRITON_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = bench.file("other-inductor")
    compiler.forget()
    launched = compiler.compile("softmax")
    jobs.touch(bench.file("go"))
    bench.answer(busy)
    compiler.proved(launched)
    stray = {artifact.hash for artifact in artifacts(old)} - before
    check(
        not stray,
        f"TRITON_CACHE_DIR is no longer set, and {len(stray)} kernels were compiled into the folder that it named for "
        "the job before",
    )


@feature("knows.late-config")
def test_late_config(bench: Bench) -> None:
    bench.ready()
    requirements = bench.requirements
    before = requirements.setting("max_autotune")
    requirements.change_setting("max_autotune", not before)
    # A worker may have to import torch first.
    found = bench.answer(bench.submit(jobs.inductor_setting, "max_autotune"), 30)
    check(
        found is not before,
        f"max_autotune is {not before} in the process that sends, since the pool was made, and {found} in a worker",
    )


@feature("knows.affinity")
def test_affinity(bench: Bench) -> None:
    one = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, one)
    bench.ready()
    for asked in _each_worker(bench, jobs.affinity):
        found = set(asked)
        check(found == one, f"the process may run on the CPUs {one}, and a worker of its pool on {found}")


@feature("knows.working-directory")
def test_working_directory(bench: Bench) -> None:
    folder = _folder(bench)
    os.chdir(folder)
    bench.ready()
    for found in _each_worker(bench, os.getcwd):
        check(
            os.path.samefile(found, folder),
            f"the process was in {folder} when it made the pool, a worker in {found}",
        )


def _each_worker(bench: Bench, function: Callable[[], Any], processes: int = 2) -> list[Any]:
    """What every worker says: jobs that wait for each other, so that no two are done by one."""
    futures = [
        bench.submit(jobs.meet_and_call, bench.file("met"), processes, 20.0, function)
        for _ in range(processes)
    ]
    return [bench.answer(future, 25, f"one of {processes} jobs at the same time") for future in futures]


def _folder(bench: Bench) -> Path:
    folder = bench.folder / "users"
    folder.mkdir()
    return folder


def _its_own(bench: Bench, folder: Path, name: str) -> None:
    """A module of that name in the folder is the one that a worker has, too."""
    (folder / f"{name}.py").write_text(_MODULE, encoding="utf-8")
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    function = importlib.import_module(name).answer
    found = bench.answer(bench.submit(function), what=f"a function of the user's module {name}")
    check(
        found == ("the user's", str(folder / f"{name}.py")),
        f"the module {name} of a worker is another one: {found}",
    )


def _seen(bench: Bench, name: str, value: str | None) -> None:
    found = bench.answer(bench.submit(jobs.environment, [name]))[name]
    check(found == value, f"{name} is {value!r} in the process that sends, and {found!r} in a worker")
