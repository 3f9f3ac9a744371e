# SPDX-License-Identifier: Apache-2.0
"""A workload compiled with different numbers of processes, caches empty: `compilepool bench compile`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_compilepool.bench import inside, rounds, starts
from pytest_compilepool.bench.result import Result, Sample, Side
from pytest_compilepool.bench.workloads import HERE, MOST_KERNELS
from pytest_compilepool.parity.artifacts import read_artifacts
from pytest_compilepool.parity.findings import Side as Compiled
from pytest_compilepool.parity.parallel import share
from pytest_compilepool.targets import triton_target
from pytest_compilepool.words import counted


@dataclass(frozen=True)
class Wish:
    """What is compiled. target: a name such as `cuda:90`, or `here`; count: how many raw kernels; limit: seconds for one
    run; triton: the target as Triton takes it, and device: what it is called, where the target is `here`."""

    target: str
    count: int
    limit: float
    triton: str = ""
    device: str = ""

    @property
    def offline(self) -> bool:
        """Whether the GPU need not be there."""
        return self.target != HERE


def ask_gpu(limit: float) -> tuple[str, str]:
    """The GPU that is here, asked by a fresh interpreter: (target as Triton takes it, name). limit: seconds.

    Raises StartFailed, also where torch sees none.
    """
    with starts.started(inside.gpu, {}, limit=limit) as start:
        told = start.told
    if not told["target"]:
        raise starts.StartFailed("torch sees no GPU here")
    return told["target"], told["device"]


def measure(
    sides: Sequence[Side], runs: int, wish: Wish, say: Callable[[str], None] = lambda line: None
) -> Result:
    """For each workload so many rounds, each with one compile for each of its sides, in turning order.

    Each is done in a fresh interpreter with empty caches of its own; its pool is ready before the clock starts. A run in
    which not every kernel was compiled by a worker of the pool is a fault, and in no figure. say: told a line after each.
    """
    about = {**starts.machine(), "target": wish.target, "runs": runs}
    if wish.count < MOST_KERNELS:
        about["kernels"] = wish.count
    if wish.device:
        about["device"] = wish.device
    result = Result("compile", about)
    for workload in dict.fromkeys(side.workload for side in sides):
        for number, side in rounds.turns([one for one in sides if one.workload == workload], runs):
            who = f"{workload}, round {number + 1}, {side}"
            try:
                sample, versions = _sample(number, side, wish)
            except starts.StartFailed as error:
                result.faults.append(f"{who}: {error}")
                say(result.faults[-1])
                continue
            about.setdefault("versions", versions)
            result.samples.append(sample)
            through = (
                f", {sample.figures['through']:.0f} of them through the pool" if side.processes > 1 else ""
            )
            say(
                f"{who}: {sample.figures['total']:.2f} s, "
                f"{counted(round(sample.figures['kernels']), 'kernel')}{through}"
            )
    return result


def _sample(number: int, side: Side, wish: Wish) -> tuple[Sample, dict[str, str]]:
    triton = wish.triton or triton_target(wish.target, "target")
    asked: dict[str, Any] = {"target": triton, "primed": side.primed}
    raw = side.workload == "kernels"
    asked |= (
        {"count": wish.count, "limit": wish.limit}
        if raw
        else {"workload": side.workload, "offline": wish.offline}
    )
    with starts.started(
        inside.kernels if raw else inside.model,
        asked,
        limit=wish.limit,
        processes=side.processes,
        prime=triton if side.primed and side.processes > 1 else "",
        # Raw kernels need no stub: Triton is told the target.
        target=wish.target if wish.offline and not raw else None,
    ) as start:
        figures, detail = of_kernels(start) if raw else of_model(start)
    figures |= _before(start)
    if side.processes > 1:
        check_through(figures)
    return Sample(number, side, figures, detail), start.answer.versions


def check_through(figures: dict[str, float]) -> None:
    """Raise StartFailed unless every kernel came from a worker of the pool: else this was no pool's compile."""
    kernels, through = round(figures["kernels"]), round(figures["through"])
    if not kernels:
        raise starts.StartFailed("no Triton kernel was compiled, so this says nothing about a pool")
    if through < kernels:
        raise starts.StartFailed(
            f"{through} of {counted(kernels, 'kernel')} went through the pool (a job done by the pid of a worker); it is "
            "in no figure"
        )


def _before(start: starts.Start) -> dict[str, float]:
    """What was over before the clock started."""
    seconds = start.answer.seconds
    figures = {}
    if "ready" in seconds:
        figures["ready"] = seconds["warm"] + seconds["ready"]
    if "primed" in seconds:
        figures["primed"] = seconds["primed"]
    if start.told.get("first") is not None:
        figures["first"] = start.told["first"]
    return figures


def of_kernels(start: starts.Start) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and detail of raw kernels. A kernel went through the pool if a job of the pool has ended in a process with
    the pid that the kernel itself was compiled in, and that is not the one that sent it."""
    answer, told = start.answer, start.told
    by_jobs: dict[int, int] = {}
    for job in answer.jobs:
        if job.outcome == "done" and job.worker not in (None, answer.pid):
            by_jobs[int(job.worker or 0)] = by_jobs.get(int(job.worker or 0), 0) + 1
    by_pid: dict[int, int] = {}
    for one in told["kernels"]:
        if not one["cached"]:
            by_pid[one["pid"]] = by_pid.get(one["pid"], 0) + 1
    cached = sum(one["cached"] for one in told["kernels"])
    if cached:
        raise starts.StartFailed(f"{counted(cached, 'kernel')} of a cold run came from a cache")
    pooled = answer.processes > 1
    figures = {
        "total": told["total"],
        "triton": 0.0 if pooled else told["total"],
        "wait": told["total"] if pooled else 0.0,
        "part": told["total"],
        "kernels": float(len(told["kernels"])),
        "through": float(sum(min(count, by_jobs.get(pid, 0)) for pid, count in by_pid.items())),
        "workers": float(len(by_pid.keys() & by_jobs.keys())),
        "longest": max(one["seconds"] for one in told["kernels"]),
    }
    return figures, {"kernels": told["kernels"]}


def of_model(start: starts.Start) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and detail of a torch.compile workload. Which kernels went through the pool is told as parity checks tell
    it: by jobs that have ended in another process, less what the process itself compiled again."""
    answer, told = start.answer, start.told
    compiled = Compiled("", answer, start.folders, read_artifacts(start.folders.triton), None)
    through, kernels = share(compiled)
    jobs = [job for job in answer.jobs if job.kernel and job.began is not None and job.ended is not None]
    took: list[dict[str, Any]] = [
        {"kernel": job.kernel, "seconds": (job.ended or 0.0) - (job.began or 0.0), "pid": job.worker}
        for job in jobs
    ]
    pooled = answer.processes > 1
    if not pooled:
        took = [{"kernel": name, "seconds": seconds, "pid": answer.pid} for name, seconds in told["each"]]
        through = 0
    clock = told["clock"]
    part = clock["triton"] + clock["wait"]
    figures = {
        "total": told["total"],
        "triton": clock["triton"],
        "wait": clock["wait"],
        "part": part,
        **shares(told["total"], part, told["phases"]),
        "kernels": float(kernels),
        "through": float(through),
        "workers": float(len({one["pid"] for one in took} - {None, answer.pid})),
        "longest": max((one["seconds"] for one in took), default=0.0),
    }
    return figures, {"kernels": took, "phases": told["phases"]}


def shares(total: float, part: float, phases: dict[str, float]) -> dict[str, float]:
    """Where the rest of the time went, in seconds, by torch's own account, nothing counted twice.

    total: of the whole call; part: of kernels, with the wait for them. A torch that does not tell one of the phases has
    its time in the one around it.
    """
    inductor = max(phases.get("compile_fx_inner", 0.0), part)
    autograd = max(phases.get("create_aot_dispatcher_function", 0.0), inductor)
    dynamo = max(phases.get("_compile.compile_inner", 0.0), autograd)
    return {
        "inductor": inductor - part,
        "autograd": autograd - inductor,
        "dynamo": dynamo - autograd,
        "other": max(0.0, total - dynamo),
    }
