# SPDX-License-Identifier: Apache-2.0
"""What `suites/test_vllm_lifecycle.py` must notice."""

from __future__ import annotations

from typing import Any

from falsified.telling import (
    COLD,
    KERNELS,
    STRANGER,
    WARM,
    Lies,
    besides,
    both,
    event,
    failed,
    later,
    missing,
    put,
    survivor,
)

LIES: Lies = {
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
}


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
