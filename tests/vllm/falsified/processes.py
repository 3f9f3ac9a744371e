# SPDX-License-Identifier: Apache-2.0
"""What `suites/test_vllm_processes.py` must notice."""

from __future__ import annotations

from typing import Any

from falsified.telling import (
    ALONE,
    COLD,
    KERNELS,
    STRANGER,
    WARM,
    Lies,
    Runs,
    Tell,
    add,
    another_token,
    besides,
    both,
    counted,
    event,
    failed,
    missing,
    put,
    segments,
    survivor,
)


def _told_by(pid: int) -> Tell:
    def tell(runs: Runs) -> None:
        runs["elsewhere"]["events"][-1]["pid"] = pid

    return tell


LIES: Lies = {
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
}


def _told_by_the_child(run: dict[str, Any]) -> None:
    for one in run["events"]:
        one["pid"] = run["pid"]


def _first_rank_only(run: dict[str, Any]) -> None:
    pid = next(one["pid"] for one in run["events"] if one["what"] == "warm")
    run["events"] = [one for one in run["events"] if one["pid"] == pid]
