# SPDX-License-Identifier: Apache-2.0
"""Each feature about vLLM can fail: what was recorded of real starts is falsified a little, and its scenario must say so.

`recorded/` has the starts of a run on a CPU machine, by the names that `Starts` keeps them under. Needs neither vLLM nor
torch.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_compilepool.conformance.definition import MANIFEST
from pytest_compilepool.conformance.manifest import read_manifest
from pytest_compilepool.conformance.mutation import scenarios
from pytest_compilepool.suite import PACKAGE, bundled
from pytest_compilepool.suites import vllm_starts
from pytest_compilepool.vllm.engines.order import Run

Runs = dict[str, dict[str, Any]]
Tell = Callable[[Runs], None]

RECORDED = Path(__file__).parent / "recorded" / "cpu-0.32.0.json"
FEATURES = {one for one in read_manifest(bundled() / MANIFEST) if one.startswith("vllm.")}
WHERE = {one: place for one, place in scenarios(bundled(), PACKAGE).items() if one.startswith("vllm.")}
ON_A_GPU = {"vllm.quiesced-at-captures", "vllm.startup-test-of-a-mixture-of-experts"}

COLD, WARM = "default-pool-cold", "default-pool-warm"
ALONE, ALONE_WARM = "default-alone-cold", "default-alone-warm"
KERNELS = "kernels"
STRANGER = 4_000_000
"""A pid that nobody in the recordings has."""


# -- how a recording is falsified ----------------------------------------------------------------------


def put(value: Any, run: str, *path: str | int) -> Tell:
    """Another value in that place of that run."""

    def tell(runs: Runs) -> None:
        place: Any = runs[run]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return tell


def add(number: float, run: str, *path: str | int) -> Tell:
    """That much more in a place, which is 0 where it is not there."""

    def tell(runs: Runs) -> None:
        place: Any = runs[run]
        for step in path[:-1]:
            place = place[step]
        old = place.get(path[-1], 0) if isinstance(place, dict) else place[path[-1]]
        place[path[-1]] = old + number

    return tell


def counted(number: int, counter: str, *runs: str) -> Tell:
    """That much more of a counter, in the first engine of each of these runs."""
    return both(*(add(number, run, "engines", 0, "counters", counter) for run in runs))


def event(what: str, run: str, **changes: Any) -> Tell:
    """Every event of that name has these entries, or these in its detail."""

    def tell(runs: Runs) -> None:
        for one in _events(runs, run, what):
            for name, value in changes.items():
                (one if name in one else one["detail"])[name] = value

    return tell


def missing(what: str, run: str) -> Tell:
    """No event of that name."""

    def tell(runs: Runs) -> None:
        for one in _events(runs, run, what):
            runs[run]["events"].remove(one)

    return tell


def later(what: str, than: str, run: str) -> Tell:
    """The first event of one name comes just after the first of another."""

    def tell(runs: Runs) -> None:
        moved, fixed = _events(runs, run, what)[0], _events(runs, run, than)[0]
        moved["at"] = fixed["at"] + 1e-6
        runs[run]["events"].sort(key=lambda one: one["at"])

    return tell


def besides(what: str, run: str, like: str = "", **detail: Any) -> Tell:
    """An event more, at the end. like: the name of one that it is a copy of."""

    def tell(runs: Runs) -> None:
        events = runs[run]["events"]
        made = {
            "what": what,
            "at": 0.0,
            "pid": runs[run]["pid"],
            "state": "absent",
            "took": None,
            "detail": {},
        }
        if like:
            made = copy.deepcopy(_events(runs, run, like)[0])
        made.update(what=what, at=events[-1]["at"] + 1.0 if events else 1.0)
        made["detail"].update(detail)
        events.append(made)

    return tell


def both(*tells: Tell) -> Tell:
    """One after the other."""

    def tell(runs: Runs) -> None:
        for one in tells:
            one(runs)

    return tell


def failed(run: str) -> Tell:
    """There was no engine."""
    return both(put([], run, "engines"), put("RuntimeError: no memory", run, "error"))


def survivor(run: str) -> Tell:
    return put(["python compile_worker --parent=7"], run, "survivors")


def segments(run: str) -> Tell:
    return put(["vllm_dist_7-tp:0-[0-1]-cpushm_0"], run, "shared")


def last_bit(run: str) -> Tell:
    """The last logprob is the next number above it."""

    def tell(runs: Runs) -> None:
        told = runs[run]["engines"][0]["logprobs"][-1]
        told[-1] = math.nextafter(told[-1], 0.0)

    return tell


def another_token(run: str, engine: int = 0) -> Tell:
    return add(1, run, "engines", engine, "tokens", 1, 3)


def _events(runs: Runs, run: str, what: str) -> list[dict[str, Any]]:
    found = [one for one in runs[run]["events"] if one["what"] == what]
    assert found, f"{run} has no event {what}"
    return found


def on_a_gpu(runs: Runs) -> Runs:
    """As if they had been recorded on a GPU: its kernels are the model's, graphs are captured, and a mixture of experts
    gives the numbers of vLLM's own startup test."""
    runs = copy.deepcopy(runs)
    cold = runs[COLD] = copy.deepcopy(runs[KERNELS])
    quiesced = _events(runs, COLD, "quiesce")[0]["at"]
    for number, where in enumerate(("profile_cudagraph_memory", "capture_model")):
        for half, what in ((0.0, "capture"), (0.5, "captured")):
            detail = {"where": where, "workers": 0}
            cold["events"].append(
                {
                    "what": what,
                    "at": quiesced + 1e-3 * (1 + number + half),
                    "pid": cold["pid"],
                    "state": "quiesced",
                    "took": None,
                    "detail": detail,
                }
            )
    cold["events"].sort(key=lambda one: one["at"])
    cold["engines"][0]["captures"] = {"all": 35, "not quiesced": 0}
    counters = {
        "cold": {
            "vllm.num_graphs_seen": 1,
            "vllm.num_compiled_artifacts_saved": 3,
            "aot_autograd.total": 33,
            "aot_autograd.autograd_cache_miss": 3,
        },
        "warm": {"vllm.num_compiled_artifacts_loaded": 3},
    }
    for pool in ("pool", "alone"):
        for phase, moved in counters.items():
            made = runs[f"moe-{pool}-{phase}"] = copy.deepcopy(runs[f"default-{pool}-{phase}"])
            made["engines"][0]["counters"] = dict(moved)
    return runs


def _one_worker(run: dict[str, Any]) -> None:
    jobs = run["engines"][0]["jobs"]
    for job in jobs:
        job["worker"] = jobs[0]["worker"]


def _in_its_own_process(run: dict[str, Any]) -> None:
    run["engines"][0]["jobs"][0]["worker"] = run["pid"]
    ready = next(one for one in run["events"] if one["what"] == "ready")
    ready["detail"]["workers"].append(run["pid"])


def _took(run: dict[str, Any], seconds: float) -> None:
    cpu = run["engines"][0]["cpu"]
    cpu[next(iter(cpu))] = seconds


def _told_by_the_child(run: dict[str, Any]) -> None:
    for one in run["events"]:
        one["pid"] = run["pid"]


def _told_by(pid: int) -> Tell:
    def tell(runs: Runs) -> None:
        runs["elsewhere"]["events"][-1]["pid"] = pid

    return tell


def _without_caches(runs: Runs) -> None:
    """Both start, and do not say the same."""
    for name, token in (("pool", 5), ("alone", 6)):
        run = runs[f"read-only-{name}"]
        run["error"], run["engines"] = "", [{"tokens": [[token]]}]


def _no_answer(runs: Runs, name: str) -> None:
    for one in ("alone", "pool"):
        text = "the interpreter ended with status 1 and gave no answer:"
        runs[f"{name}-{one}"].update(error=text, status=1)


def _first_rank_only(run: dict[str, Any]) -> None:
    pid = next(one["pid"] for one in run["events"] if one["what"] == "warm")
    run["events"] = [one for one in run["events"] if one["pid"] == pid]


# -- what is said, and what must be noticed of it ------------------------------------------------------


def mode(name: str, saved: int = 3) -> list[tuple[str, Tell]]:
    """What the features about counters must notice. saved: artifacts that a cold start saves in this mode."""
    cold, warm = f"{name}-pool-cold", f"{name}-pool-warm"
    colds, warms = (cold, f"{name}-alone-cold"), (warm, f"{name}-alone-warm")
    artifacts = "vllm.num_compiled_artifacts"
    return [
        (
            "cold, with a pool and without: vllm.num_inductor_compiles: 6 instead of 5",
            counted(1, "vllm.num_inductor_compiles", cold),
        ),
        ("warm, with a pool and without: inductor.extern_calls", counted(-1, "inductor.extern_calls", warm)),
        ("aot_autograd.unheard_of: 1 instead of 0", counted(1, "aot_autograd.unheard_of", cold)),
        (
            "vllm.num_graphs_seen: 0 instead of 1",
            put(0, cold, "engines", 0, "counters", "vllm.num_graphs_seen"),
        ),
        # The same with a pool and without, and wrong.
        ("compiled 4 of 5 subgraphs", counted(-1, "vllm.num_inductor_compiles", *colds)),
        ("compiled 0 of 0 subgraphs", both(*(put({}, one, "engines", 0, "counters") for one in colds))),
        (f"has saved {saved + 1} artifacts", counted(1, f"{artifacts}_saved", *colds)),
        ("a cold start has loaded 1 artifacts", counted(1, f"{artifacts}_loaded", *colds)),
        ("has hit AOTAutograd's cache 1 times", counted(1, "aot_autograd.autograd_cache_hit", *colds)),
        ("a warm start has hit AOTAutograd's cache", counted(1, "aot_autograd.autograd_cache_hit", *warms)),
        ("has missed AOTAutograd's cache 2 times", counted(2, "aot_autograd.autograd_cache_miss", *warms)),
        ("a warm start has saved 1 artifacts", counted(1, f"{artifacts}_saved", *warms)),
        (f"has loaded {saved + 1} artifacts of {saved}", counted(1, f"{artifacts}_loaded", *warms)),
        ("still there when its process had ended", survivor(warm)),
        ("processes of a pool are left", put([STRANGER], cold, "engines", 0, "left")),
        ("warm, alone: no engine", failed(f"{name}-alone-warm")),
    ]


def refused(value: str) -> list[tuple[str, Tell]]:
    """What the features about numbers that are none must notice."""
    run = f"processes-{value}"
    text = f"WARNING the compile pool: VLLM_COMPILE_PROCESSES: {value!r} is not a number"
    return [
        ("0 warnings of the pool instead of one", put([], run, "warnings")),
        ("2 warnings of the pool instead of one", put([text, text], run, "warnings")),
        ("does not say 'allowed'", put([text], run, "warnings")),
        (
            f"does not say {repr(value)!r}",
            put(["WARNING 10:00 compile pool: allowed is 1 to 9"], run, "warnings"),
        ),
        (
            "does not say 'VLLM_COMPILE_PROCESSES'",
            put([f"compile pool: {value!r}; allowed is 1"], run, "warnings"),
        ),
        ("there is a pool: [", besides("warm", run)),
        ("there are processes of a pool", put([STRANGER], run, "engines", 0, "pool", "workers")),
        ("tokens [[", another_token(run)),
        ("a warm start without a pool: no engine", failed(ALONE_WARM)),
        ("still there when its process had ended", survivor(run)),
        ("no engine: RuntimeError: no memory", failed(run)),
    ]


def fault(name: str) -> list[tuple[str, Tell]]:
    """What all features about faults must notice."""
    run = f"fault-{name}"
    return [
        ("0 warnings of the pool instead of one", put([], run, "warnings")),
        (
            "2 warnings of the pool instead of one",
            lambda runs: runs[run]["warnings"].extend(runs[run]["warnings"]),
        ),
        ("the warning does not say", put(["WARNING something of the pool"], run, "warnings")),
        (f"{name}: tokens", another_token(run)),
        ("a cold start without a pool: no engine", failed(ALONE)),
        ("blocks of KV cache", add(-1, run, "engines", 0, "blocks")),
        (f"{name}: no engine: RuntimeError: no memory", failed(run)),
        ("still there when its process had ended", survivor(run)),
        ("are left after the engine was shut down", put([STRANGER], run, "engines", 0, "left")),
        ("ended with status -9", put(-9, run, "status")),
        ("ended with status None", put(None, run, "status")),
    ]


LIES: dict[str, list[tuple[str, Tell]]] = {
    "vllm.events-in-order": [
        ("the events came in the order", later("ready", "quiesce", KERNELS)),
        ("the events came in the order", later("warm", "loaded", KERNELS)),
        ("the events came in the order", later("quiesce", "warmed-up", KERNELS)),
        ("there was no event 'shutdown'", missing("shutdown", KERNELS)),
        ("there was no event 'quiesce'", missing("quiesce", KERNELS)),
        ("there was no event 'warm'; there were: none", put([], KERNELS, "events")),
        ("started more than once", besides("warm", KERNELS, like="warm")),
        ("the pool was given up", besides("fallback", KERNELS, reason="no memory")),
        ("before the pool was ready: ['triton_", event("ready", KERNELS, took=30.0)),
        ("no engine: RuntimeError: no memory", failed(KERNELS)),
    ],
    "vllm.sidecar-before-the-model": [
        ("when the model was loaded already", later("warm", "loaded", KERNELS)),
        ("started at the first compile", event("warm", KERNELS, when="at the first compile")),
        ("there was no event 'warm'", missing("warm", KERNELS)),
    ],
    "vllm.kernels-in-workers": [
        ("no engine: RuntimeError: no memory", failed(KERNELS)),
        ("{'pool': 2, 'process': 1}", put({"pool": 2, "process": 1}, KERNELS, "engines", 0, "kernels")),
        ("{'pool': 2, 'cache': 1}", put({"pool": 2, "cache": 1}, KERNELS, "engines", 0, "kernels")),
        ("no kernel went through the pool", put({}, KERNELS, "engines", 0, "kernels")),
        (f"{{{STRANGER}}}, which are none", put(STRANGER, KERNELS, "engines", 0, "jobs", 1, "worker")),
        ("2 jobs for 3 kernels", put("failed", KERNELS, "engines", 0, "jobs", 2, "outcome")),
        ("2 jobs for 3 kernels", put("", KERNELS, "engines", 0, "jobs", 0, "kernel")),
        ("has compiled all of 3 kernels", lambda runs: _one_worker(runs[KERNELS])),
        ("own process is among the workers", lambda runs: _in_its_own_process(runs[KERNELS])),
    ],
    "vllm.quiesced-at-captures": [
        ("no engine: RuntimeError: no memory", failed(COLD)),
        ("workers lived while CUDA graphs were captured", event("capture", COLD, workers=1)),
        ("workers lived while CUDA graphs were captured", event("captured", COLD, workers=2)),
        (
            "at 1 of 35 captures a pool was not quiesced",
            put(1, COLD, "engines", 0, "captures", "not quiesced"),
        ),
        ("torch has captured no CUDA graph", put(0, COLD, "engines", 0, "captures", "all")),
        ("at no capture", both(missing("capture", COLD), missing("captured", COLD))),
    ],
    "vllm.idle-while-serving": [
        ("no engine: RuntimeError: no memory", failed(KERNELS)),
        ("CPU seconds of the pool", lambda runs: _took(runs[KERNELS], 0.5)),
        ("CPU seconds of the pool", lambda runs: _took(runs[KERNELS], 0.02)),
        ("CPU seconds of the pool", lambda runs: _took(runs[KERNELS], -1.0)),
        ("was not measured", put({}, KERNELS, "engines", 0, "cpu")),
        ("workers live while the engine serves", put([STRANGER], KERNELS, "engines", 0, "pool", "workers")),
        ("the sidecar has gone", put([], KERNELS, "engines", 0, "pool", "sidecars")),
        ("was watched for 0.4 s only", put(0.4, KERNELS, "engines", 0, "watched")),
    ],
    "vllm.late-kernels": [
        ("no engine: RuntimeError: no memory", failed(KERNELS)),
        ("no kernel was compiled by a worker", put({}, KERNELS, "engines", 0, "late")),
        ("no kernel was compiled by a worker", put({"process": 2}, KERNELS, "engines", 0, "late")),
        ("where they were compiled", put({"pool": 1, "process": 1}, KERNELS, "engines", 0, "late")),
        ("where they were compiled", put({"pool": 1, "rescued": 1}, KERNELS, "engines", 0, "late")),
        ("nothing was quiesced after the end of warm-up", missing("quiesce", KERNELS)),
        ("workers live after the kernels", put([STRANGER], KERNELS, "engines", 0, "pool", "workers")),
    ],
    "vllm.shutdown-leaves-nothing": [
        ("no engine: RuntimeError: no memory", failed(KERNELS)),
        ("did not end when it was asked to", event("shutdown", KERNELS, how="killed")),
        (f"outlived the pool: [{STRANGER}]", event("shutdown", KERNELS, left=[STRANGER])),
        ("there was no event 'shutdown'", missing("shutdown", KERNELS)),
        ("compile_worker --parent=7", survivor(KERNELS)),
        ("processes of a pool are left", put([STRANGER], KERNELS, "engines", 0, "left")),
        ("children of the engine's process: ['python']", put(["python"], KERNELS, "census", "children")),
        ("ended with status 1", put(1, KERNELS, "status")),
        ("ended with status None", put(None, KERNELS, "status")),
    ],
    "vllm.warm-start-has-no-pool": [
        ("the pool was not kept back", missing("deferred", WARM)),
        ("a sidecar was started", besides("warm", WARM)),
        ("there are processes of a pool", put([STRANGER], WARM, "engines", 0, "pool", "sidecars")),
        ("there are processes of a pool", put([STRANGER], WARM, "engines", 0, "pool", "workers")),
        ("compile_worker --parent=7", survivor(WARM)),
        ("no engine: RuntimeError: no memory", failed(WARM)),
    ],
    "vllm.same-tokens-and-logprobs": [
        ("a cold start with a pool: tokens", another_token(COLD)),
        ("a warm start with a pool: tokens", another_token(WARM)),
        ("kernels in workers: tokens", another_token(KERNELS)),
        ("a cold start with a pool: logprobs differ by up to", last_bit(COLD)),
        ("a warm start with a pool: logprobs differ by up to", last_bit(WARM)),
        ("kernels in workers: logprobs differ by up to", last_bit(KERNELS)),
        ("a cold start with a pool: [] logprobs for", put([], COLD, "engines", 0, "logprobs")),
        ("8, 8, 0] logprobs for", put([], KERNELS, "engines", 0, "logprobs", 2)),
        (
            "without a pool",
            both(*(put([], run, "engines", 0, "logprobs") for run in (ALONE, COLD, WARM, KERNELS))),
        ),
        (
            "says hardly anything",
            both(*(put([[5] * 8] * 3, run, "engines", 0, "tokens") for run in (ALONE, COLD, WARM, KERNELS))),
        ),
        ("a cold start without a pool: no engine", failed(ALONE)),
        ("has generated nothing", put([[], [], []], COLD, "engines", 0, "tokens")),
    ],
    "vllm.same-kv-cache-blocks": [
        ("cold, with a pool: 4095; alone: 4096", add(-1, COLD, "engines", 0, "blocks")),
        ("warm, with a pool: 4097; alone: 4096", add(1, WARM, "engines", 0, "blocks")),
        ("warm, with a pool: 4096; alone: 4097", add(1, ALONE_WARM, "engines", 0, "blocks")),
        ("does not say how many", put(None, COLD, "engines", 0, "blocks")),
        (
            "does not say how many",
            both(*(put(None, run, "engines", 0, "blocks") for run in (ALONE, COLD, WARM))),
        ),
    ],
    "vllm.counters-default": mode("default"),
    "vllm.counters-no-mega": mode("no-mega"),
    "vllm.counters-no-aot": mode("no-aot"),
    "vllm.counters-no-standalone": mode("no-standalone", saved=0),
    "vllm.counters-no-cache": mode("no-cache", saved=0),
    "vllm.warm-start-saves-nothing": [
        ("a cold start with a pool: no engine", failed(COLD)),
        ("a warm start with a pool: no engine", failed(WARM)),
        ("num_compiled_artifacts_saved by 1", counted(1, "vllm.num_compiled_artifacts_saved", WARM)),
        ("num_aot_artifacts_saved by 1", counted(1, "vllm.num_aot_artifacts_saved", WARM)),
        ("num_aot_compiles by 1", counted(1, "vllm.num_aot_compiles", WARM)),
        ("loaded 2 artifacts of 3", counted(-1, "vllm.num_compiled_artifacts_loaded", WARM)),
        ("loaded 3 artifacts of 4", counted(1, "vllm.num_compiled_artifacts_saved", COLD)),
        (
            "has saved no artifact",
            both(
                counted(-3, "vllm.num_compiled_artifacts_saved", COLD),
                counted(-3, "vllm.num_compiled_artifacts_loaded", WARM),
            ),
        ),
    ],
    "vllm.startup-test-of-a-mixture-of-experts": [
        (
            "cold, with a pool: aot_autograd.total: 32 instead of 33",
            counted(-1, "aot_autograd.total", "moe-pool-cold"),
        ),
        (
            "cold, alone: aot_autograd.total: 32 instead of 33",
            counted(-1, "aot_autograd.total", "moe-alone-cold"),
        ),
        ("autograd_cache_miss: 4", counted(1, "aot_autograd.autograd_cache_miss", "moe-pool-cold")),
        ("artifacts_saved: 33", counted(30, "vllm.num_compiled_artifacts_saved", "moe-pool-cold")),
        ("artifacts_loaded: 2", counted(-1, "vllm.num_compiled_artifacts_loaded", "moe-pool-warm")),
        (
            "saved on a warm start, with a pool",
            counted(1, "vllm.num_compiled_artifacts_saved", "moe-pool-warm"),
        ),
        (
            "aot_autograd.total on a warm start, alone: 3",
            counted(3, "aot_autograd.total", "moe-pool-warm", "moe-alone-warm"),
        ),
        (
            "with a pool, warm: aot_autograd.total: 30 instead of 0",
            counted(30, "aot_autograd.total", "moe-pool-warm"),
        ),
        (
            "with a pool, cold: vllm.num_graphs_seen: 2 instead of 1",
            counted(1, "vllm.num_graphs_seen", "moe-pool-cold"),
        ),
        ("moe-pool, warm: still there", survivor("moe-pool-warm")),
        ("moe-alone, cold: no engine", failed("moe-alone-cold")),
    ],
    "vllm.other-starts-do-not-matter": [
        (
            "aot_autograd.total: 6 instead of 5",
            add(1, "twice-cold", "engines", 1, "counters", "aot_autograd.total"),
        ),
        (
            "inductor.fxgraph_cache_hit: 1 instead of 0",
            add(1, "twice-cold", "engines", 1, "counters", "inductor.fxgraph_cache_hit"),
        ),
        ("the second engine says something else", another_token("twice-cold", engine=1)),
        ("the second engine did not start", lambda runs: runs["twice-cold"]["engines"].pop()),
        ("RuntimeError: at the end", put("RuntimeError: at the end", "twice-cold", "error")),
        (
            "has generated nothing",
            both(*(put([[], [], []], "twice-cold", "engines", one, "tokens") for one in (0, 1))),
        ),
        (
            "has saved no artifact",
            both(*(put({}, "twice-cold", "engines", one, "counters") for one in (0, 1))),
        ),
        ("still there when its process had ended", survivor("twice-cold")),
        ("are left after the engine was shut down", put([STRANGER], "twice-cold", "engines", 1, "left")),
    ],
    "vllm.engine-in-its-own-process": [
        ("an engine in its own process: no engine", failed("elsewhere")),
        ("a cold start without a pool: no engine", failed(ALONE)),
        (
            "the process that has no worker has a lifecycle",
            lambda runs: _told_by_the_child(runs["elsewhere"]),
        ),
        ("2 processes have a lifecycle", _told_by(STRANGER)),
        ("0 processes have a lifecycle", put([], "elsewhere", "events")),
        ("sidecars were started", besides("warm", "elsewhere", like="warm")),
        ("sidecars were started", missing("warm", "elsewhere")),
        ("there was no event 'shutdown'", missing("shutdown", "elsewhere")),
        ("still there when its process had ended", survivor("elsewhere")),
        ("shared memory is left that nobody uses", segments("elsewhere")),
        ("in one process, alone", another_token("elsewhere")),
    ],
    "vllm.killed-engine-leaves-nothing": [
        (
            "there is still: ['python sidecar']",
            put(["python sidecar"], "killed", "census", "left of the killed"),
        ),
        ("the engine's process was not killed", put([], "killed", "census", "killed")),
        ("there was no sidecar", put([], "killed", "census", "killed sidecars")),
        ("still there when all had ended", survivor("killed")),
        (
            "the engine's process was not killed: RuntimeError: no memory",
            both(failed("killed"), lambda runs: runs["killed"]["census"].pop("killed")),
        ),
    ],
    "vllm.tensor-parallel-two": [
        ("1 of two workers have a pool", lambda runs: _first_rank_only(runs["two-ranks"])),
        ("two workers have the sidecars", event("warm", "two-ranks", sidecar=STRANGER)),
        ("pools were not shut down", missing("shutdown", "two-ranks")),
        ("pools were not shut down", besides("shutdown", "two-ranks", like="shutdown")),
        ("still there when its process had ended", survivor("two-ranks")),
        ("two ranks: no engine", failed("two-ranks")),
    ],
    "vllm.two-engines-in-one-process": [
        ("cold: no engine", failed(COLD)),
        ("warm: no engine", failed(WARM)),
        ("the first of two engines", add(1, "twice", "engines", 0, "counters", "aot_autograd.total")),
        (
            "the second of two engines in one process, and a warm start: vllm.num_compiled_artifacts_saved: 3",
            add(3, "twice", "engines", 1, "counters", "vllm.num_compiled_artifacts_saved"),
        ),
        ("tokens of two engines in one process", another_token("twice", engine=1)),
        ("tokens of two engines in one process", another_token("twice", engine=0)),
        ("the second engine did not start", lambda runs: runs["twice"]["engines"].pop()),
        ("RuntimeError: at the end", put("RuntimeError: at the end", "twice", "error")),
        ("still there when its process had ended", survivor("twice")),
        ("are left after the engine was shut down", put([STRANGER], "twice", "engines", 1, "left")),
    ],
    "vllm.nothing-without-the-variable": [
        ("a start without the variable: no engine", failed(ALONE)),
        ("there is a lifecycle: [", besides("off", ALONE)),
        (
            "methods: {",
            put(
                "pytest_compilepool/vllm/plugin.py",
                ALONE,
                "census",
                "methods",
                "WorkerWrapperBase.init_device",
            ),
        ),
        (
            "wrapped: ['AsyncCompile.wakeup']",
            both(
                *(
                    put(
                        "pytest_compilepool/torch_compat/gate.py",
                        run,
                        "census",
                        "methods",
                        "AsyncCompile.wakeup",
                    )
                    for run in (ALONE, "without")
                )
            ),
        ),
        (
            "were not found",
            both(
                *(
                    put("-", run, "census", "methods", "WorkerWrapperBase.init_device")
                    for run in (ALONE, "without")
                )
            ),
        ),
        ("settings: {", put(2, ALONE, "census", "settings", "compile_threads")),
        ("settings: {", put(60.5, ALONE, "census", "settings", "quiesce_async_compile_time")),
        (
            "environment: TORCHINDUCTOR_WORKER_START: fork instead of 0",
            put("fork", ALONE, "census", "environment", "TORCHINDUCTOR_WORKER_START"),
        ),
        (
            "environment: VLLM_WORKER_MULTIPROC_METHOD: 0 instead of spawn",
            lambda runs: runs[ALONE]["census"]["environment"].pop("VLLM_WORKER_MULTIPROC_METHOD"),
        ),
        ("threads: [", lambda runs: runs[ALONE]["census"]["threads"].append("subproc")),
        ("children: ['python']", put(["python"], ALONE, "census", "children")),
        ("pools: 1", put(1, ALONE, "census", "pools")),
        ("counters: inductor.async_compile_cache_hit", counted(1, "inductor.async_compile_cache_hit", ALONE)),
        ("tokens", another_token(ALONE)),
        ("blocks of the KV cache", add(-1, ALONE, "engines", 0, "blocks")),
        ("a start without the package: no engine", failed("without")),
    ],
    "vllm.nothing-after-shutdown": [
        ("a cold start without a pool: no engine", failed(ALONE)),
        *(
            (
                f"are still wrapped: {{'AsyncCompile.{name}'",
                put(
                    "pytest_compilepool/torch_compat/gate.py",
                    KERNELS,
                    "census",
                    "methods",
                    f"AsyncCompile.{name}",
                ),
            )
            for name in ("wakeup", "use_process_pool", "warm_pool")
        ),
        ("compile_threads: 2 instead of 1", put(2, KERNELS, "census", "settings", "compile_threads")),
        (
            "quiesce_async_compile_pool: False instead of True",
            put(False, KERNELS, "census", "settings", "quiesce_async_compile_pool"),
        ),
        (
            "worker_start_method: fork instead of subprocess",
            put("fork", KERNELS, "census", "settings", "worker_start_method"),
        ),
        ("torch still holds 1 pools", put(1, KERNELS, "census", "pools")),
        ("no engine: RuntimeError: no memory", failed(KERNELS)),
    ],
    "vllm.no-quiesce": [
        *fault("no_quiesce"),
        ("there was no event 'off'", missing("off", "fault-no_quiesce")),
        ("why there is no pool: 'another'", event("off", "fault-no_quiesce", reason="another")),
        ("there is a pool: ", besides("warm", "fault-no_quiesce")),
        ("processes of a pool", put([STRANGER], "fault-no_quiesce", "engines", 0, "pool", "sidecars")),
    ],
    "vllm.sidecar-cannot-start": [
        *fault("sidecar_cannot_start"),
        ("there was no event 'fallback'", missing("fallback", "fault-sidecar_cannot_start")),
        ("{'pool': 3}", put({"pool": 3}, "fault-sidecar_cannot_start", "engines", 0, "kernels")),
        (
            "kernels by where they were compiled: {}",
            put({}, "fault-sidecar_cannot_start", "engines", 0, "kernels"),
        ),
    ],
    "vllm.sidecar-without-memory": [
        *fault("no_memory_for_the_sidecar"),
        ("there was no event 'warm'", missing("warm", "fault-no_memory_for_the_sidecar")),
        ("there was no event 'fallback'", missing("fallback", "fault-no_memory_for_the_sidecar")),
        ("{'pool': 3}", put({"pool": 3}, "fault-no_memory_for_the_sidecar", "engines", 0, "kernels")),
        (
            "kernels by where they were compiled: {}",
            put({}, "fault-no_memory_for_the_sidecar", "engines", 0, "kernels"),
        ),
    ],
    "vllm.sidecar-killed-before-a-compile": [
        *fault("kill_sidecar_when_loaded"),
        ("there was no event 'fallback'", missing("fallback", "fault-kill_sidecar_when_loaded")),
        (
            "the reason given: 'no memory'",
            event("fallback", "fault-kill_sidecar_when_loaded", reason="no memory"),
        ),
        ("{'pool': 3}", put({"pool": 3}, "fault-kill_sidecar_when_loaded", "engines", 0, "kernels")),
        (
            "kernels by where they were compiled: {}",
            put({}, "fault-kill_sidecar_when_loaded", "engines", 0, "kernels"),
        ),
    ],
    "vllm.sidecar-killed-in-a-compile": [
        *fault("kill_sidecar_with_a_job"),
        ("there was no event 'fallback'", missing("fallback", "fault-kill_sidecar_with_a_job")),
        (
            "the pool owed no kernel",
            put([], "fault-kill_sidecar_with_a_job", "engines", 0, "jobs"),
        ),
        (
            "kernels by where they were compiled: {}",
            put({}, "fault-kill_sidecar_with_a_job", "engines", 0, "kernels"),
        ),
        (
            "{'rescued': 1, 'pool': 2}",
            put({"rescued": 1, "pool": 2}, "fault-kill_sidecar_with_a_job", "engines", 0, "kernels"),
        ),
    ],
    "vllm.processes-lots": refused("lots"),
    "vllm.processes-0": refused("0"),
    "vllm.processes-9999": refused("9999"),
    "vllm.refused-config": [
        ("different states: {'alone': 0, 'pool': -11}", put(-11, "refused-pool", "status")),
        ("no answer, status 1: the interpreter", lambda runs: _no_answer(runs, "refused")),
        ("does not refuse", put("", "refused-alone", "error")),
        ("with a pool: ValueError: another", put("ValueError: another", "refused-pool", "error")),
        ("with a pool: \n", put("", "refused-pool", "error")),
        ("still there when its process had ended", survivor("refused-pool")),
        ("children: ['python']", put(["python"], "refused-pool", "census", "children")),
        (
            "no answer, status None",
            both(*(put(None, f"refused-{one}", "status") for one in ("alone", "pool"))),
        ),
    ],
    "vllm.cache-root-read-only": [
        ("different states: {'alone': 0, 'pool': -11}", put(-11, "read-only-pool", "status")),
        ("no answer, status 1: the interpreter", lambda runs: _no_answer(runs, "read-only")),
        ("tokens with a pool: [[[5]]]; alone: [[[6]]]", lambda runs: _without_caches(runs)),
        ("there was no event 'warm'", missing("warm", "read-only-pool")),
        ("with a pool: ''", put("", "read-only-pool", "error")),
        ("with a pool: 'ValueError: x'", put("ValueError: x", "read-only-pool", "error")),
        ("alone: ''", put("", "read-only-alone", "error")),
        ("still there when its process had ended", survivor("read-only-pool")),
        (
            "no answer, status None",
            both(*(put(None, f"read-only-{one}", "status") for one in ("alone", "pool"))),
        ),
    ],
}


# -- the tests -----------------------------------------------------------------------------------------


def recorded(identifier: str) -> Runs:
    """The starts that this feature looks at, and others."""
    runs: Runs = json.loads(RECORDED.read_text(encoding="utf-8"))
    return on_a_gpu(runs) if identifier in ON_A_GPU else runs


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Have the scenario of a feature look at these starts, by their names. What it notes."""

    def played(identifier: str, runs: Runs) -> list[str]:
        def of(self: Any, plan: vllm_starts.Plan) -> Run:
            if plan.name not in runs:
                pytest.fail(f"nothing is recorded under the name {plan.name}")
            return Run.from_json(copy.deepcopy(runs[plan.name]))

        monkeypatch.setattr(vllm_starts.Starts, "of", of)
        (tmp_path / "vllm" / "roots" / "default-alone" / "torch_compile_cache").mkdir(parents=True)
        notes: list[str] = []
        told = played.counters = {}
        bench = SimpleNamespace(
            order=SimpleNamespace(shared=str(tmp_path), limit=600.0),
            requirements=SimpleNamespace(vllm_gpu=identifier in ON_A_GPU),
            note=notes.append,
            count=lambda counters: told.update(counters),
        )
        module, function = WHERE[identifier]
        getattr(importlib.import_module(module), function).scenario(bench)
        return notes

    return played


def test_every_feature_is_falsified():
    assert set(LIES) == FEATURES == set(WHERE)
    assert [identifier for identifier, lies in LIES.items() if len(lies) < 2] == []


@pytest.mark.parametrize("identifier", sorted(LIES))
def test_what_was_recorded_conforms(identifier, play):
    assert all("nan" not in note for note in play(identifier, recorded(identifier)))


def test_counters_are_told_to_whoever_compares_releases(play):
    play("vllm.counters-default", recorded("vllm.counters-default"))
    assert play.counters["cold.vllm.num_compiled_artifacts_saved"] == 3
    assert play.counters["warm.vllm.num_compiled_artifacts_loaded"] == 3
    assert "warm.vllm.num_compiled_artifacts_saved" not in play.counters


@pytest.mark.parametrize(
    ("identifier", "says", "tell"),
    [
        pytest.param(identifier, says, tell, id=f"{identifier}-{number}")
        for identifier, lies in sorted(LIES.items())
        for number, (says, tell) in enumerate(lies)
    ],
)
def test_a_start_that_is_falsified_is_noticed(identifier, says, tell, play):
    runs = recorded(identifier)
    tell(runs)
    assert runs != recorded(identifier)
    with pytest.raises(AssertionError) as raised:
        play(identifier, runs)
    assert says in str(raised.value)


def test_nothing_of_the_machine_is_in_the_recording():
    text = RECORDED.read_text(encoding="utf-8")
    for name in ("/tmp/", "/root/", "/home/", "/usr/", "/opt/", "site-packages"):
        assert name not in text


@pytest.fixture
def starts(tmp_path):
    """Those of a run on a CPU machine."""
    bench: Any = SimpleNamespace(
        order=SimpleNamespace(shared=str(tmp_path)), requirements=SimpleNamespace(vllm_gpu=False)
    )
    return vllm_starts.Starts(bench)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (vllm_starts.ENGINE, "max_model_len=5", "'max_model_len=5' is no JSON: "),
        (vllm_starts.ENGINE, "[5]", "'[5]' is no JSON object of arguments of vllm.LLM"),
        (vllm_starts.MODEL, "/nowhere", "'/nowhere' is neither a folder with a config.json nor one of "),
    ],
)
def test_a_variable_that_cannot_be_followed_is_named(starts, monkeypatch, tmp_path, variable, value, says):
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setenv(vllm_starts.MODEL, str(tmp_path))
    monkeypatch.delenv(vllm_starts.ENGINE, raising=False)
    assert starts._filled(vllm_starts.Plan("any", "any")).model == str(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(AssertionError) as raised:
        starts._filled(vllm_starts.Plan("any", "any"))
    assert str(raised.value).startswith(f"{variable}: {says}")


def test_starts_belong_to_a_run():
    bench: Any = SimpleNamespace(order=SimpleNamespace(shared=""))
    with pytest.raises(AssertionError, match="without a folder that is shared by the run"):
        vllm_starts.Starts(bench)


def test_a_start_is_made_once(starts, monkeypatch):
    made: list[str] = []

    def run(order, root, **named):
        made.append(root.name)
        return Run(pid=len(made))

    monkeypatch.setattr(vllm_starts, "run", run)
    monkeypatch.setattr(vllm_starts.Starts, "model", lambda self: Path("model"))
    one, other = vllm_starts.Plan("one", "caches"), vllm_starts.Plan("other", "caches")
    assert [starts.of(plan).pid for plan in (one, other, one, other)] == [1, 2, 1, 2]
    assert made == ["caches", "caches"]
    # Also by another process of the same run, and whole.
    assert vllm_starts.Starts(starts._bench).of(one) == Run(pid=1)
