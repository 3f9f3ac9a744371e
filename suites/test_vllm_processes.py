# SPDX-License-Identifier: Apache-2.0
"""Where engines and workers live, and that nothing of the pool is left of them; and that without it nothing is touched."""

from __future__ import annotations

from typing import Any

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.vllm.engines.order import Order, Run

from .vllm_starts import LIMIT, PREPARE, Plan, Starts, clean, counters, first, names, same, started

_ELSEWHERE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}


@feature("vllm.engine-in-its-own-process")
def test_engine_in_its_own_process(bench: Bench) -> None:
    starts = Starts(bench)
    root = starts.where_kernels_are_new("elsewhere")
    order = Order("", starts.processes, environment=_ELSEWHERE, limit=LIMIT)
    run = starts.of(Plan("elsewhere", root, order))
    engine = started(run, "an engine in its own process")
    pids = {event["pid"] for event in run.events}
    check(run.pid not in pids, "the process that has no worker has a lifecycle")
    check(len(pids) == 1, f"{len(pids)} processes have a lifecycle: {names(run)}")
    check(names(run).count("warm") == 1, f"sidecars were started: {names(run)}")
    first(run, "shutdown")
    clean(run, "an engine in its own process")
    wanted = started(starts.cold(pool=False), "a cold start without a pool").tokens
    check(engine.tokens == wanted, f"tokens {engine.tokens}; in one process, alone: {wanted}")


@feature("vllm.killed-engine-leaves-nothing")
def test_killed_engine_leaves_nothing(bench: Bench) -> None:
    starts = Starts(bench)
    root = starts.where_kernels_are_new("killed")
    order = Order(
        "",
        starts.processes,
        environment=_ELSEWHERE,
        prepare=(f"{PREPARE}:kernels", f"{PREPARE}:kill_engine_when_serving"),
        limit=LIMIT,
    )
    run = starts.of(Plan("killed", root, order))
    check(run.census.get("killed"), f"the engine's process was not killed: {run.error}\n{run.log[-1500:]}")
    check(run.census["killed sidecars"], "there was no sidecar when the engine was killed")
    left = run.census["left of the killed"]
    check(not left, f"10 s after its engine was killed there is still: {left}")
    check(not run.survivors, f"still there when all had ended: {run.survivors}")
    bench.note(f"gone {run.census['gone after']:.2f} s after SIGKILL")


@feature("vllm.tensor-parallel-two")
def test_tensor_parallel_two(bench: Bench) -> None:
    starts = Starts(bench)
    # One layer: two ranks that compile at the same time take long on few CPUs.
    engine = {
        "tensor_parallel_size": 2,
        "hf_overrides": {"num_hidden_layers": 1},
        "load_format": "dummy",
    }
    order = Order("", "2", engine, environment=_ELSEWHERE, limit=LIMIT)
    run = starts.of(Plan("two-ranks", "two-ranks", order))
    started(run, "two ranks")
    pids = {event["pid"] for event in run.events if event["what"] == "warm"}
    check(len(pids) == 2, f"{len(pids)} of two workers have a pool: {names(run)}")
    sidecars = {event["detail"]["sidecar"] for event in run.events if event["what"] == "warm"}
    check(len(sidecars) == 2, f"two workers have the sidecars {sidecars}")
    check(names(run).count("shutdown") == 2, f"pools were not shut down: {names(run)}")
    clean(run, "two ranks")


@feature("vllm.two-engines-in-one-process")
def test_two_engines_in_one_process(bench: Bench) -> None:
    starts = Starts(bench)
    order = Order("", starts.processes, engines=2, limit=LIMIT)
    run = starts.of(Plan("twice", "twice", order))
    check(len(run.engines) == 2, f"the second engine did not start: {run.error}\n{run.log[-1500:]}")
    started(run, "two engines in one process")
    cold, warm = (started(starts.cold(True), "cold"), started(starts.warm(True), "warm"))
    same(counters(run.engines[0]), counters(cold), "the first of two engines in one process, and one alone")
    same(
        counters(run.engines[1]), counters(warm), "the second of two engines in one process, and a warm start"
    )
    tokens = [engine.tokens for engine in run.engines]
    check(
        tokens == [cold.tokens] * 2, f"tokens of two engines in one process: {tokens}; alone: {cold.tokens}"
    )
    clean(run, "two engines in one process")


@feature("vllm.nothing-without-the-variable")
def test_nothing_without_the_variable(bench: Bench) -> None:
    starts = Starts(bench)
    run = starts.cold(pool=False)
    started(run, "a start without the variable")
    check(not run.events, f"there is a lifecycle: {names(run)}")
    _as_it_was(starts, run, "with the package, without the variable")


@feature("vllm.nothing-after-shutdown")
def test_nothing_after_shutdown(bench: Bench) -> None:
    """torch's methods, settings and pools are as they would be; vLLM's class keeps the hook for the next engine."""
    starts = Starts(bench)
    run = starts.kernels()
    started(run, "a start with a pool")
    methods = {name: place for name, place in run.census["methods"].items() if name.startswith("Async")}
    strange = {name: place for name, place in methods.items() if not place.startswith("torch/")}
    check(not strange, f"methods of torch's are still wrapped: {strange}")
    alone = starts.cold(pool=False)
    started(alone, "a cold start without a pool")
    same(run.census["settings"], alone.census["settings"], "torch's settings after a shutdown")
    check(not run.census["pools"], f"torch still holds {run.census['pools']} pools")


def _as_it_was(starts: Starts, run: Run, what: str) -> None:
    """Beside a start in which vLLM loads no plugin at all. Raises AssertionError with what differs."""
    order = Order("", plugin=False, limit=LIMIT)
    without = starts.of(Plan("without", "without", order, memory=True))
    wanted = started(without, "a start without the package")
    found = run.engine
    unseen = [name for name, place in without.census["methods"].items() if place == "-"]
    check(not unseen, f"methods that were not found, so that nobody sees whether they are wrapped: {unseen}")
    for name in ("methods", "settings", "threads", "children", "pools"):
        check(
            run.census[name] == without.census[name],
            f"{what}: {name}: {run.census[name]}; without the package: {without.census[name]}",
        )
    same(_stable(run.census["environment"]), _stable(without.census["environment"]), f"{what}: environment")
    same(found.counters, wanted.counters, f"{what}: counters")
    check(found.tokens == wanted.tokens, f"{what}: tokens")
    check(found.blocks == wanted.blocks, f"{what}: blocks of the KV cache")
    strange = [
        name for name, place in run.census["methods"].items() if place.startswith("pytest_compilepool/")
    ]
    check(not strange, f"{what}: wrapped: {strange}")


def _stable(environment: dict[str, Any]) -> dict[str, Any]:
    """Without names that vLLM makes up anew in each process, and pointers."""
    random = (
        "VLLM_DIST_IDENT",
        "VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME",
        "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR",
    )
    return {name: value for name, value in environment.items() if name not in random}
