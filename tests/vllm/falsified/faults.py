# SPDX-License-Identifier: Apache-2.0
"""What `suites/test_vllm_faults.py` must notice."""

from __future__ import annotations

from falsified.telling import (
    ALONE,
    ALONE_WARM,
    STRANGER,
    Lies,
    Runs,
    Tell,
    add,
    another_token,
    besides,
    both,
    event,
    failed,
    missing,
    put,
    survivor,
)


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


LIES: Lies = {
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


def _without_caches(runs: Runs) -> None:
    """Both start, and do not say the same."""
    for name, token in (("pool", 5), ("alone", 6)):
        run = runs[f"read-only-{name}"]
        run["error"], run["engines"] = "", [{"tokens": [[token]]}]


def _no_answer(runs: Runs, name: str) -> None:
    for one in ("alone", "pool"):
        text = "the interpreter ended with status 1 and gave no answer:"
        runs[f"{name}-{one}"].update(error=text, status=1)
