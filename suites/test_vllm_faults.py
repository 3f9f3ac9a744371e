# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of the pool, and whatever it was asked for with: the engine starts as it does without one."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.vllm.engines.order import Engine, Order, Run

from .vllm_starts import LIMIT, PREPARE, Plan, Starts, clean, first, names, started


@feature("vllm.no-quiesce")
def test_no_quiesce(bench: Bench) -> None:
    run = _faulty(bench, "no_quiesce")
    off = first(run, "off")
    check("quiesce" in off["detail"]["reason"], f"why there is no pool: {off['detail']['reason']!r}")
    _one_sentence(run, "quiesce")
    check("warm" not in names(run), f"there is a pool: {names(run)}")


@feature("vllm.sidecar-cannot-start")
def test_sidecar_cannot_start(bench: Bench) -> None:
    run = _faulty(bench, "sidecar_cannot_start")
    first(run, "fallback")
    _one_sentence(run, "sidecar")
    _in_the_process(run)


@feature("vllm.sidecar-without-memory")
def test_sidecar_without_memory(bench: Bench) -> None:
    """`warm_pool()` returns as if all were well."""
    run = _faulty(bench, "no_memory_for_the_sidecar")
    first(run, "warm")
    first(run, "fallback")
    _one_sentence(run, "given up")
    _in_the_process(run)


@feature("vllm.sidecar-killed-before-a-compile")
def test_sidecar_killed_before_a_compile(bench: Bench) -> None:
    # On a machine without a GPU the kernels come in the same event: the fault has to be planted first.
    run = _faulty(bench, "kill_sidecar_when_loaded")
    reason = str(first(run, "fallback")["detail"]["reason"])
    check("died" in reason or "SIGKILL" in reason or "gone" in reason, f"the reason given: {reason!r}")
    _one_sentence(run, "given up")
    _in_the_process(run)


@feature("vllm.sidecar-killed-in-a-compile")
def test_sidecar_killed_in_a_compile(bench: Bench) -> None:
    run = _faulty(bench, "kill_sidecar_with_a_job")
    first(run, "fallback")
    _one_sentence(run, "given up")
    owed = [job for job in run.engine.jobs if job["kernel"] and job["outcome"] == "failed"]
    check(owed, f"the pool owed no kernel when its sidecar was killed: {run.engine.jobs}")
    # Who asks next finds the pool dead, or who waits: then it is rescued.
    kernels = run.engine.kernels
    check(
        not kernels.get("pool") and {*kernels} & {"process", "rescued"},
        f"kernels by where they were compiled: {kernels}",
    )


@feature("vllm.processes-lots")
def test_processes_lots(bench: Bench) -> None:
    _bad_number(bench, "lots")


@feature("vllm.processes-0")
def test_processes_0(bench: Bench) -> None:
    _bad_number(bench, "0")


@feature("vllm.processes-9999")
def test_processes_9999(bench: Bench) -> None:
    _bad_number(bench, "9999")


@feature("vllm.refused-config")
def test_refused_config(bench: Bench) -> None:
    """A configuration that vLLM refuses is refused as without a pool, and nothing of a pool is left."""
    starts = Starts(bench)
    engine = {"max_model_len": -5}
    found = {}
    for name, processes in (("alone", ""), ("pool", starts.processes)):
        order = Order("", processes, engine, limit=LIMIT)
        found[name] = starts.of(Plan(f"refused-{name}", f"refused-{name}", order))
    _answered(found)
    check(found["alone"].error, "vLLM does not refuse a negative max_model_len")
    check(
        found["pool"].error == found["alone"].error,
        f"with a pool: {found['pool'].error}\nalone: {found['alone'].error}",
    )
    clean(found["pool"], "a configuration that was refused")
    check(not found["pool"].census["children"], f"children: {found['pool'].census['children']}")


@feature("vllm.cache-root-read-only")
def test_cache_root_read_only(bench: Bench) -> None:
    """As vLLM does it itself: it starts or it does not."""
    starts = Starts(bench)
    root = _read_only(starts)
    found = {}
    for name, processes in (("alone", ""), ("pool", starts.processes)):
        # torch's own caches are not vLLM's business: it makes a folder for them as soon as it is imported.
        own = starts.root(f"read-only-{name}")
        places = {"TORCHINDUCTOR_CACHE_DIR": str(own / "inductor"), "TRITON_CACHE_DIR": str(own / "triton")}
        order = Order("", processes, environment=places, limit=LIMIT)
        found[name] = starts.of(Plan(f"read-only-{name}", str(root), order))
    _answered(found)
    alone, pool = found["alone"], found["pool"]
    first(pool, "warm")
    check(bool(pool.error) == bool(alone.error), f"with a pool: {pool.error!r}; alone: {alone.error!r}")
    kinds = [run.error.partition(":")[0] for run in (alone, pool)]
    check(kinds[0] == kinds[1], f"with a pool: {pool.error!r}; alone: {alone.error!r}")
    tokens = [[engine.tokens for engine in run.engines] for run in (pool, alone)]
    check(tokens[0] == tokens[1], f"tokens with a pool: {tokens[0]}; alone: {tokens[1]}")
    clean(pool, "a start over caches that are read-only")
    bench.note(f"vLLM {'refuses: ' + alone.error[:80] if alone.error else 'starts without caches'}")


_NO_PROCESSES: dict[str, list[int]] = {"sidecars": [], "workers": []}


def _faulty(bench: Bench, fault: str) -> Run:
    """A cold start to which this happens, with kernels to be compiled: the engine serves, and says what it should."""
    starts = Starts(bench)
    root = starts.where_kernels_are_new(f"fault-{fault}")
    # The order matters where both act at one event.
    prepare = (f"{PREPARE}:{fault}", f"{PREPARE}:kernels")
    order = Order("", starts.processes, prepare=prepare, limit=LIMIT)
    run = starts.of(Plan(f"fault-{fault}", root, order))
    engine = started(run, fault)
    wanted = started(starts.cold(pool=False), "a cold start without a pool")
    check(engine.tokens == wanted.tokens, f"{fault}: tokens {engine.tokens}; alone: {wanted.tokens}")
    check(engine.blocks == wanted.blocks or starts.gpu, f"{fault}: {engine.blocks} blocks of KV cache")
    check(engine.pool == _NO_PROCESSES, f"{fault}: there are processes of a pool: {engine.pool}")
    clean(run, fault)
    check(run.status == 0, f"{fault}: the engine's process ended with status {run.status}")
    return run


def _bad_number(bench: Bench, value: str) -> None:
    """Over caches that are warm already: the engine starts as without the variable."""
    starts = Starts(bench)
    wanted = started(starts.warm(pool=False), "a warm start without a pool")
    order = Order("", value, limit=LIMIT)
    run = starts.of(Plan(f"processes-{value}", "default-alone", order))
    engine: Engine = started(run, f"VLLM_COMPILE_PROCESSES={value}")
    check(not [name for name in names(run) if name != "off"], f"there is a pool: {names(run)}")
    check(engine.pool == _NO_PROCESSES, f"there are processes of a pool: {engine.pool}")
    # With its quotes: a 0 alone is in the time of any line.
    _one_sentence(run, repr(value))
    text = run.warnings[0]
    for word in ("VLLM_COMPILE_PROCESSES", "allowed"):
        check(word in text, f"the warning does not say {word!r}: {text}")
    check(engine.tokens == wanted.tokens, f"tokens {engine.tokens}; alone: {wanted.tokens}")
    clean(run, f"VLLM_COMPILE_PROCESSES={value}")


def _in_the_process(run: Run) -> None:
    """All kernels were compiled there, and there were some."""
    kernels = run.engine.kernels
    check(
        kernels.get("process") and not kernels.get("pool"),
        f"kernels by where they were compiled: {kernels}",
    )


def _answered(runs: dict[str, Run]) -> None:
    """What vLLM raises is an answer; two starts that hang, or die, are not the same by that."""
    for name, run in runs.items():
        there = run.status is not None and not run.error.startswith("the interpreter ")
        check(there, f"{name}: no answer, status {run.status}: {run.error}")
    states = {name: run.status for name, run in runs.items()}
    check(len({*states.values()}) == 1, f"the processes ended with different states: {states}")


def _one_sentence(run: Run, word: str) -> None:
    check(len(run.warnings) == 1, f"{len(run.warnings)} warnings of the pool instead of one: {run.warnings}")
    check(word in run.warnings[0], f"the warning does not say {word!r}: {run.warnings[0]}")


def _read_only(starts: Starts) -> Path:
    """A folder in which nobody can write: for root, one that the kernel guards."""
    if os.geteuid() == 0:
        return Path("/sys/compilepool")
    folder = starts.root("read-only")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    return folder
