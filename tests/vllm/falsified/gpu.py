# SPDX-License-Identifier: Apache-2.0
"""What a GPU would have recorded."""

from __future__ import annotations

import copy

from falsified.telling import COLD, KERNELS, Runs, events_of


def on_a_gpu(runs: Runs) -> Runs:
    """As if they had been recorded on a GPU: its kernels are the model's, graphs are captured, and a mixture of experts
    gives the numbers of vLLM's own startup test."""
    runs = copy.deepcopy(runs)
    cold = runs[COLD] = copy.deepcopy(runs[KERNELS])
    quiesced = events_of(runs, COLD, "quiesce")[0]["at"]
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
