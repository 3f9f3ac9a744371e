# SPDX-License-Identifier: Apache-2.0
"""With a pool vLLM computes, counts and stores what it does without one, cold and warm, in each of its cache modes."""

from __future__ import annotations

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.vllm.engines import models
from pytest_compilepool.vllm.engines.order import Engine, Order

from .vllm_starts import Plan, Starts, clean, counters, same, started


@feature("vllm.same-tokens-and-logprobs")
def test_same_tokens_and_logprobs(bench: Bench) -> None:
    starts = Starts(bench)
    wanted = started(starts.cold(pool=False), "a cold start without a pool")
    check(
        len({token for tokens in wanted.tokens for token in tokens}) > 2,
        f"the model says hardly anything: {wanted.tokens}",
    )
    sizes = [len(tokens) for tokens in wanted.tokens]
    found_sizes = [len(one) for one in wanted.logprobs]
    check(found_sizes == sizes, f"{found_sizes} logprobs for {sizes} tokens, without a pool")
    found = {
        "a cold start with a pool": starts.cold(pool=True),
        "a warm start with a pool": starts.warm(pool=True),
        "a cold start with kernels in workers": starts.kernels(),
    }
    most = 0.0
    for what, run in found.items():
        engine = started(run, what)
        check(engine.tokens == wanted.tokens, f"{what}: tokens {engine.tokens}, alone {wanted.tokens}")
        found_sizes = [len(one) for one in engine.logprobs]
        check(found_sizes == sizes, f"{what}: {found_sizes} logprobs for {sizes} tokens")
        far = max(
            abs(one - other)
            for ours, theirs in zip(engine.logprobs, wanted.logprobs, strict=True)
            for one, other in zip(ours, theirs, strict=True)
        )
        most = max(most, far)
        allowed = _GPU_LOGPROBS if starts.gpu else 0.0
        check(far <= allowed, f"{what}: logprobs differ by up to {far:g}; allowed: {allowed:g}")
    bench.note(f"{sum(map(len, wanted.tokens))} tokens; logprobs differ by up to {most:g}")


@feature("vllm.same-kv-cache-blocks")
def test_same_kv_cache_blocks(bench: Bench) -> None:
    starts = Starts(bench)
    blocks = {
        "cold, alone": starts.cold(pool=False).engine.blocks,
        "cold, with a pool": starts.cold(pool=True).engine.blocks,
        "warm, alone": starts.warm(pool=False).engine.blocks,
        "warm, with a pool": starts.warm(pool=True).engine.blocks,
    }
    check(all(blocks.values()), f"vLLM does not say how many blocks its KV cache has: {blocks}")
    # A warm start may have others than a cold one, which has compiled with the memory that vLLM measures.
    for phase in ("cold", "warm"):
        alone, pool = blocks[f"{phase}, alone"], blocks[f"{phase}, with a pool"]
        check(pool == alone, f"blocks of the KV cache, {phase}, with a pool: {pool}; alone: {alone}")
    bench.note(f"{blocks['cold, alone']} blocks")


@feature("vllm.counters-default")
def test_counters_default(bench: Bench) -> None:
    _mode(bench, "default")


@feature("vllm.counters-no-mega")
def test_counters_no_mega(bench: Bench) -> None:
    _mode(bench, "no-mega")


@feature("vllm.counters-no-aot")
def test_counters_no_aot(bench: Bench) -> None:
    _mode(bench, "no-aot")


@feature("vllm.counters-no-standalone")
def test_counters_no_standalone(bench: Bench) -> None:
    _mode(bench, "no-standalone")


@feature("vllm.counters-no-cache")
def test_counters_no_cache(bench: Bench) -> None:
    _mode(bench, "no-cache")


@feature("vllm.warm-start-saves-nothing")
def test_warm_start_saves_nothing(bench: Bench) -> None:
    starts = Starts(bench)
    cold = started(starts.cold(pool=True), "a cold start with a pool").counters
    warm = started(starts.warm(pool=True), "a warm start with a pool").counters
    saved = cold.get("vllm.num_compiled_artifacts_saved", 0)
    check(saved, f"the cold start has saved no artifact: {cold}")
    for name in ("compiled_artifacts_saved", "aot_artifacts_saved", "aot_compiles"):
        moved = warm.get(f"vllm.num_{name}", 0)
        check(not moved, f"the warm start has moved vllm.num_{name} by {moved}")
    loaded = warm.get("vllm.num_compiled_artifacts_loaded", 0)
    check(loaded == saved, f"the warm start has loaded {loaded} artifacts of {saved} that were saved")
    bench.note(f"{saved} artifacts saved, then {loaded} loaded and 0 saved")


@feature("vllm.startup-test-of-a-mixture-of-experts")
def test_startup_test_of_a_mixture_of_experts(bench: Bench) -> None:
    starts = Starts(bench)
    engine = {
        "load_format": "dummy",
        "num_gpu_blocks_override": 64,
        "compilation_config": {"cudagraph_mode": "NONE"},
    }
    numbers = {}
    for pool in (False, True):
        name = f"moe-{'pool' if pool else 'alone'}"
        for phase in ("cold", "warm"):
            order = Order(
                str(models.find("small-phimoe")),
                starts.processes if pool else "",
                engine,
                # The router's product is 4 wide: whether it is padded would be decided by measuring, beside others.
                environment={"TORCHINDUCTOR_SHAPE_PADDING": "0"},
                limit=bench.order.limit / 4,
                tokens=1,
            )
            run = starts.of(Plan(f"{name}-{phase}", name, order))
            numbers[pool, phase] = counters(started(run, f"{name}, {phase}"))
            clean(run, f"{name}, {phase}")
    for pool in (False, True):
        what = "with a pool" if pool else "alone"
        pinned = {
            "cold": {
                "vllm.num_compiled_artifacts_saved": 3,
                "aot_autograd.total": 33,
                "aot_autograd.autograd_cache_miss": 3,
            },
            "warm": {"vllm.num_compiled_artifacts_loaded": 3},
        }
        for phase, wanted in pinned.items():
            found = {name: numbers[pool, phase].get(name, 0) for name in wanted}
            same(found, wanted, f"vLLM's own startup test, {phase}, {what}")
        warm = numbers[pool, "warm"]
        check(not warm.get("vllm.num_compiled_artifacts_saved"), f"saved on a warm start, {what}: {warm}")
        # 0 where one artifact holds all of them, else the duplicates are traced for their keys.
        total = warm.get("aot_autograd.total", 0)
        check(total in (0, 30), f"aot_autograd.total on a warm start, {what}: {total}")
    for phase in ("cold", "warm"):
        same(numbers[True, phase], numbers[False, phase], f"with a pool, {phase}")


@feature("vllm.other-starts-do-not-matter")
def test_other_starts_do_not_matter(bench: Bench) -> None:
    """The question of a reviewer: does the other test in this file affect this test?"""
    starts = Starts(bench)
    order = Order("", starts.processes, prepare=(_FRESH_ROOTS,), engines=2, limit=bench.order.limit - 20)
    run = starts.of(Plan("twice-cold", "twice-cold", order))
    check(len(run.engines) == 2, f"the second engine did not start: {run.error}\n{run.log[-1500:]}")
    started(run, "two engines, each over caches of its own")
    one, other = (counters(engine) for engine in run.engines)
    check(one.get("vllm.num_compiled_artifacts_saved"), f"the first of two has saved no artifact: {one}")
    same(other, one, "the second of two cold starts in one process, each over caches of its own")
    tokens = [engine.tokens for engine in run.engines]
    check(tokens[0] == tokens[1], f"the second engine says something else: {tokens}")
    clean(run, "two engines, each over caches of its own")


_GPU_LOGPROBS = 1e-5
"""On an H200 two starts without a pool, cold and warm, differ by 1e-6: a kernel's configuration is chosen by measuring."""

_FRESH_ROOTS = "pytest_compilepool.suites.vllm_prepare:fresh_caches_for_each_engine"
_SAVING = ("default", "no-mega", "no-aot")


def _mode(bench: Bench, mode: str) -> None:
    """Cold and warm, alone and with a pool: right by themselves, and the same."""
    starts = Starts(bench)
    runs = {
        (phase, pool): start(pool, mode)
        for phase, start in (("cold", starts.cold), ("warm", starts.warm))
        for pool in (False, True)
    }
    engines = {
        key: started(run, f"{key[0]}, {'with a pool' if key[1] else 'alone'}") for key, run in runs.items()
    }
    for phase in ("cold", "warm"):
        same(
            counters(engines[phase, True]),
            counters(engines[phase, False]),
            f"{mode}: {phase}, with a pool and without",
        )
    _right(mode, engines["cold", True], engines["warm", True])
    for (phase, pool), run in runs.items():
        clean(run, f"{phase}, {'with a pool' if pool else 'alone'}")
    cold = engines["cold", True].counters
    graphs, unique = cold.get("aot_autograd.total", 0), cold.get("aot_autograd.autograd_cache_miss", 0)
    bench.note(f"{graphs} subgraphs, {unique} unique")
    for phase in ("cold", "warm"):
        told = counters(engines[phase, True])
        bench.count({f"{phase}.{name}": value for name, value in told.items()})


def _right(mode: str, cold: Engine, warm: Engine) -> None:
    first, second = cold.counters, warm.counters
    graphs = first.get("aot_autograd.total", 0)
    compiled = first.get("vllm.num_inductor_compiles", 0)
    check(graphs and compiled == graphs, f"{mode}: a cold start compiled {compiled} of {graphs} subgraphs")
    unique = first.get("aot_autograd.autograd_cache_miss", 0)
    saved = first.get("vllm.num_compiled_artifacts_saved", 0)
    check(
        saved == (unique if mode in _SAVING else 0),
        f"{mode}: a cold start has saved {saved} artifacts of {unique} unique subgraphs",
    )
    loaded = first.get("vllm.num_compiled_artifacts_loaded", 0)
    check(not loaded, f"{mode}: a cold start has loaded {loaded} artifacts")
    # A hit means that AOTAutograd's own cache was read, beside vLLM's.
    hits = first.get("aot_autograd.autograd_cache_hit", 0)
    check(not hits, f"{mode}: a cold start has hit AOTAutograd's cache {hits} times")
    misses = second.get("aot_autograd.autograd_cache_miss", 0)
    check(not misses, f"{mode}: a warm start has missed AOTAutograd's cache {misses} times")
    again = second.get("vllm.num_compiled_artifacts_saved", 0)
    check(not again, f"{mode}: a warm start has saved {again} artifacts")
    loaded = second.get("vllm.num_compiled_artifacts_loaded", 0)
    check(loaded == saved, f"{mode}: a warm start has loaded {loaded} artifacts of {saved}")
    hits = second.get("aot_autograd.autograd_cache_hit", 0)
    wanted = unique if mode == "no-cache" else 0
    check(hits == wanted, f"{mode}: a warm start has hit AOTAutograd's cache {hits} times, not {wanted}")
