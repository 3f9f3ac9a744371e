# SPDX-License-Identifier: Apache-2.0
"""What `suites/test_vllm_results.py` must notice."""

from __future__ import annotations

from falsified.telling import (
    ALONE,
    ALONE_WARM,
    COLD,
    KERNELS,
    STRANGER,
    WARM,
    Lies,
    Tell,
    add,
    another_token,
    both,
    counted,
    failed,
    last_bit,
    put,
    survivor,
)


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


LIES: Lies = {
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
}
