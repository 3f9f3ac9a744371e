# SPDX-License-Identifier: Apache-2.0
"""Cold and warm starts: the same function in one fresh interpreter after the other, over the same caches."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_compilepool.counters.interpreter import named_counts, pool_counts
from pytest_compilepool.fresh import callables, values
from pytest_compilepool.fresh.callables import START_METHODS, BadInput, check_function, seconds
from pytest_compilepool.fresh.order import Answer, Order
from pytest_compilepool.fresh.run import OUTPUT, Folders, log_tail, run
from pytest_compilepool.pool.policy import BadProcesses, parse_processes
from pytest_compilepool.records import JobRecord
from pytest_compilepool.targets import BadTarget, parse_target

__tracebackhide__ = callables.hidden

# What must not move on a warm start.
_COMPILING = (
    "aot_autograd.autograd_cache_miss",
    "aot_autograd.autograd_cache_saved",
    "aot_autograd.autograd_cache_bypass",
    "inductor.fxgraph_cache_miss",
    "inductor.fxgraph_cache_bypass",
    "vllm.num_compiled_artifacts_saved",
    "vllm.num_aot_artifacts_saved",
)

# What a compile leaves in the caches: folders of Inductor's with a file for each artifact, and binaries.
_SAVED = {"aotautograd", "fxgraph"}
_COMPILED = (".so", ".cubin", ".hsaco")


class PhaseFailed(RuntimeError):
    """The function raised in the fresh interpreter. Its text has the whole traceback from there."""

    told_in_full = True


class WarmStartCompiled(AssertionError):
    """A warm start compiled something, or loaded nothing. Its text says what."""

    told_in_full = True


@dataclass(frozen=True)
class Phase:
    """One start. name: cold or warm.

    output: what the function returned, tensors in host memory; counters: that moved, by dotted name, the pool's
    own too; one that did not is 0, one that there is not an error; jobs: of the pool, with the
    worker of each; seconds: import_torch, warm, ready (of the pool), call, shutdown; files: what is new in the
    caches, or was written again, by path below them; answer: everything else that is known.
    """

    name: str
    output: Any = field(repr=False)
    counters: Mapping[str, int]
    jobs: tuple[JobRecord, ...]
    seconds: Mapping[str, float]
    files: tuple[str, ...] = field(repr=False)
    answer: Answer = field(repr=False)

    @property
    def artifacts_saved(self) -> int:
        """How many entries of AOTAutograd's cache were saved, or of the FX graph cache where that one is off."""
        saved = self.counters["aot_autograd.autograd_cache_saved"]
        return saved or len([file for file in self.files if file.startswith("inductor/fxgraph/")])

    @property
    def artifacts_loaded(self) -> int:
        """How many entries of AOTAutograd's cache were hit, or of the FX graph cache where that one is off."""
        return self.counters["aot_autograd.autograd_cache_hit"] or self.counters["inductor.fxgraph_cache_hit"]

    @property
    def workers(self) -> dict[int, int]:
        """Jobs done, by the pid of the worker."""
        pids = [job.worker for job in self.jobs if job.worker is not None and job.outcome == "done"]
        return {pid: pids.count(pid) for pid in sorted(set(pids))}

    @property
    def in_process_compiles(self) -> int:
        """Triton kernels that the interpreter compiled itself; what was found in a cache does not count.

        Raises BadInput with a Triton that tells nobody what it compiles (before 3.4).
        """
        if self.answer.deaf:
            raise BadInput(
                "in_process_compiles: this Triton tells nobody what it compiles (3.4 and later do)"
            )
        return sum(not seen.cached for seen in self.answer.compiles)

    def compiled(self) -> list[str]:
        """Everything that says that something was compiled, a phrase each; [] for a start that compiled nothing."""
        moved = self.answer.moved
        found = [f"{name} moved by {moved[name]}" for name in _COMPILING if moved.get(name)]
        if self.jobs:
            names = ", ".join(sorted({job.kernel or job.function for job in self.jobs}))
            found.append(f"{len(self.jobs)} jobs went to the pool: {names}")
        found += [f"it cannot be told: {source}: {doubt}" for source, doubt in self.answer.doubts.items()]
        found += self._more_than_loaded()
        if not self.answer.deaf and self.in_process_compiles:
            names = ", ".join(sorted({seen.kernel for seen in self.answer.compiles if not seen.cached}))
            found.append(
                f"{self.in_process_compiles} kernels were compiled in the interpreter itself: {names}"
            )
        new = [file for file in self.files if file.endswith(_COMPILED) or _SAVED & {*Path(file).parts}]
        if new:
            found.append(
                f"{len(new)} new files in the caches: {', '.join(new[:4])}{' ...' if len(new) > 4 else ''}"
            )
        return found

    def _more_than_loaded(self) -> Iterator[str]:
        """Where caches are off nothing is missed, and nothing is saved."""
        moved = self.answer.moved
        graphs = moved.get("aot_autograd.total", 0)
        # vLLM loads its own artifacts, and traces graphs of those that it has not split again.
        if graphs > self.artifacts_loaded > 0 and not any(name.startswith("vllm.") for name in moved):
            yield f"{graphs} graphs were asked for, and {self.artifacts_loaded} loaded from a cache"
        generated = moved.get("metrics.inductor_code_gen_cumulative_compile_time_us", 0)
        if generated:
            yield f"code was generated for {generated / 1e6:.3f} s"

    def assert_nothing_compiled(self) -> None:
        """Raises WarmStartCompiled, with everything that was compiled, or if nothing was loaded either."""
        __tracebackhide__ = True
        found = self.compiled()
        if not found and not self.artifacts_loaded:
            found = ["nothing was loaded from a cache either: did the function compile anything at all?"]
        if found:
            listed = "\n".join(f"  {line}" for line in found)
            raise WarmStartCompiled(
                f"the {self.name} start was to compile nothing:\n{listed}\n  moved: {self.counters}"
            )


@dataclass
class Phases:
    """Runs functions in fresh interpreters over the same caches; see `cold` and `warm`.

    new_folder: gives an empty folder; processes, start_method, target: of the interpreters' pools; ready_timeout,
    shutdown_timeout, limit: seconds; environment: variables to set (None: to unset) in them.
    """

    new_folder: Callable[[], Path]
    processes: int = 1
    start_method: str = "subprocess"
    target: str | None = None
    ready_timeout: float = 60.0
    shutdown_timeout: float = 10.0
    limit: float = 300.0
    environment: Mapping[str, str | None] = field(default_factory=dict)
    _caches: Path | None = None
    _number: int = 0

    def using(
        self,
        *,
        processes: int | None = None,
        start_method: str | None = None,
        target: str | None = None,
        environment: Mapping[str, str | None] | None = None,
        limit: float | None = None,
    ) -> Phases:
        """The same with other settings and caches of its own. processes: 1 is no pool; limit: seconds."""
        if target is not None:
            try:
                parse_target(target, "compile_phases.using(): target")
            except BadTarget as error:
                raise BadInput(str(error)) from None
        if processes is not None:
            try:
                processes = parse_processes(processes, "compile_phases.using(): processes")
            except BadProcesses as error:
                raise BadInput(str(error)) from None
        if environment is not None:
            environment = callables.environment(environment, "compile_phases.using()")
        if limit is not None:
            seconds(limit, "limit", "compile_phases.using()")
        if start_method is not None and start_method not in START_METHODS:
            raise BadInput(
                f"compile_phases.using(): start_method={start_method!r} is not allowed; "
                f"allowed: {', '.join(START_METHODS)}"
            )
        given: dict[str, Any] = {
            "processes": processes,
            "start_method": start_method,
            "target": target,
            "environment": environment,
            "limit": limit,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changed, _caches=None, _number=0)

    def cold(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Phase:
        """Run it in a fresh interpreter over new, empty caches.

        function: at the top level of an importable module; it compiles what it wants to by itself. Returns what
        happened. Raises PhaseFailed if it raised, BadInput for what cannot be sent there or back, FreshFailed if
        the interpreter died.
        """
        self._caches, self._number = self.new_folder(), 0
        return self._run("cold", function, args, kwargs)

    def warm(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Phase:
        """Run it in another fresh interpreter over the caches that the last `cold` filled, and prove it warm.

        Raises WarmStartCompiled if anything was compiled or saved, or nothing was loaded; else as `cold`.
        """
        __tracebackhide__ = True
        phase = self.again(function, *args, **kwargs)
        phase.assert_nothing_compiled()
        return phase

    def again(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Phase:
        """The same without the proof: for a start that is to compile some of it."""
        if self._caches is None:
            raise BadInput("compile_phases.warm(): there is nothing to be warm from; call cold() first")
        return self._run("warm", function, args, kwargs)

    def _run(self, name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Phase:
        origin = f"compile_phases.{name}()"
        check_function(function, origin)
        import sys

        assert self._caches is not None
        self._number += 1
        folders = Folders.below(self._caches / "caches", self._caches / f"run-{self._number}")
        order = Order(
            callables.pack((function, args, kwargs), f"{origin}: the function and its arguments"),
            tuple(sys.path),
            processes=self.processes,
            start_method=self.start_method,
            target=self.target,
            ready_timeout=self.ready_timeout,
            shutdown_timeout=self.shutdown_timeout,
            limit=self.limit,
        )
        before = _files(self._caches / "caches")
        answer = run(order, folders, self.environment)
        failure = answer.failure
        if failure is not None:
            if failure.type in ("BadInput", "OfflineUnsupported"):
                raise BadInput(f"{origin}: {failure.text}")
            raise PhaseFailed(f"{origin}: {failure.type} in stage {failure.stage!r}\n{failure.trace}")
        if answer.faults:
            raise PhaseFailed(
                f"{origin}: {'; '.join(answer.faults)}\nthe end of its log:\n{log_tail(folders.run)}"
            )
        (call,) = values.read(str(folders.run / OUTPUT))["calls"]
        numbers = {**answer.moved, **pool_counts(answer.jobs, None if answer.deaf else answer.compiles)}
        after = _files(self._caches / "caches")
        new = sorted(file for file in after if after[file] != before.get(file))
        return Phase(
            name,
            call["output"],
            named_counts(numbers, f"{origin}: counters"),
            tuple(answer.jobs),
            answer.seconds,
            tuple(new),
            answer,
        )


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Files below a folder by path from there, with when they were written and which ones they are; locks are none."""
    found = {}
    for room, _, names in os.walk(folder):  # not rglob: what goes while we look is no error here
        for path in (Path(room, name) for name in names if not name.endswith((".lock", ".tmp"))):
            with contextlib.suppress(FileNotFoundError):
                told = path.stat()
                if stat.S_ISREG(told.st_mode):
                    found[path.relative_to(folder).as_posix()] = told.st_mtime_ns, told.st_ino
    return found
