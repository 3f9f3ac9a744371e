# SPDX-License-Identifier: Apache-2.0
"""The life of the pool in a vLLM worker: when it is there, who uses it, and when it must not be."""

from __future__ import annotations

from pytest_compilepool.conformance.bench import Bench, check
from pytest_compilepool.conformance.feature import feature

from .vllm_starts import Starts, clean, first, names, started


@feature("vllm.events-in-order")
def test_events_in_order(bench: Bench) -> None:
    run = Starts(bench).kernels()
    engine = started(run, "a cold start with a pool")
    wanted = ["warm", "attached", "loaded", "ready", "quiesce", "warmed-up", "shutdown"]
    times = [first(run, what)["at"] for what in wanted]
    check(times == sorted(times), f"the events came in the order {names(run)}; wanted: {wanted}")
    check(names(run).count("warm") == 1, f"the sidecar was started more than once: {names(run)}")
    check("fallback" not in names(run), f"the pool was given up: {first(run, 'warm')}, {names(run)}")
    ready = first(run, "ready")
    # An event's time is that of its beginning. A millisecond for what was rounded.
    early = [
        job["kernel"]
        for job in engine.jobs
        if job["kernel"] and job["submitted"] < ready["at"] + ready["took"] - 0.001
    ]
    check(not early, f"kernels were sent before the pool was ready: {early}")
    bench.note(f"waited {ready['took']:.2f} s for the pool")


@feature("vllm.sidecar-before-the-model")
def test_sidecar_before_the_model(bench: Bench) -> None:
    run = Starts(bench).kernels()
    warm, loaded = first(run, "warm"), first(run, "loaded")
    check(warm["at"] < loaded["at"], "the sidecar was started when the model was loaded already")
    check(
        warm["detail"]["when"] in ("from_engine_args", "init_worker", "init_device"),
        f"the sidecar was started {warm['detail']['when']}",
    )
    bench.note(f"{loaded['at'] - warm['at']:.1f} s before the model was loaded")


@feature("vllm.kernels-in-workers")
def test_kernels_in_workers(bench: Bench) -> None:
    run = Starts(bench).kernels()
    engine = started(run, "a cold start with a pool")
    check(engine.kernels.get("pool"), f"no kernel went through the pool: {engine.kernels}")
    check(set(engine.kernels) == {"pool"}, f"kernels by where they were compiled: {engine.kernels}")
    done = [job for job in engine.jobs if job["kernel"] and job["outcome"] == "done"]
    workers = set(first(run, "ready")["detail"]["workers"])
    strange = {job["worker"] for job in done} - workers
    check(len(done) >= engine.kernels["pool"], f"{len(done)} jobs for {engine.kernels['pool']} kernels")
    check(not strange, f"jobs were done by {strange}, which are none of the workers {workers}")
    check(run.pid not in workers, "the engine's own process is among the workers")
    used = {job["worker"] for job in done}
    check(len(used) > 1, f"one worker, {used}, has compiled all of {len(done)} kernels")
    bench.note(f"{engine.kernels['pool']} of {sum(engine.kernels.values())} kernels in {len(used)} workers")


@feature("vllm.quiesced-at-captures")
def test_quiesced_at_captures(bench: Bench) -> None:
    run = Starts(bench).kernels()
    engine = started(run, "a cold start with a pool")
    captures = [event for event in run.events if event["what"] in ("capture", "captured")]
    check(captures, f"the lifecycle was at no capture: {names(run)}")
    awake = [event for event in captures if event["detail"]["workers"]]
    check(not awake, f"workers lived while CUDA graphs were captured: {awake}")
    # Not by the lifecycle's own word: by what torch's pools were when torch captured.
    check(engine.captures["all"], "torch has captured no CUDA graph")
    check(
        not engine.captures["not quiesced"],
        f"at {engine.captures['not quiesced']} of {engine.captures['all']} captures a pool was not quiesced",
    )
    places = sorted({event["detail"]["where"] for event in captures})
    bench.note(f"{engine.captures['all']} graphs captured in {', '.join(places)}")


@feature("vllm.idle-while-serving")
def test_idle_while_serving(bench: Bench) -> None:
    run = Starts(bench).kernels()
    engine = started(run, "a cold start with a pool")
    check(engine.pool["sidecars"], "the sidecar has gone: nothing was watched")
    check(not engine.pool["workers"], f"workers live while the engine serves: {engine.pool['workers']}")
    check(engine.watched >= 2.0, f"the engine was watched for {engine.watched} s only")
    missed = {*map(str, engine.pool["sidecars"])} - {*engine.cpu}
    check(not missed, f"the CPU time of sidecar {', '.join(missed)} was not measured: {engine.cpu}")
    busy = {pid: seconds for pid, seconds in engine.cpu.items() if not 0 <= seconds <= 0.01}
    check(
        not busy,
        f"CPU seconds of the pool while the engine generated for {engine.watched:.1f} s, by pid: {busy}",
    )
    bench.note(f"{max(engine.cpu.values()):.2f} s of CPU in {engine.watched:.1f} s of generating")


@feature("vllm.late-kernels")
def test_late_kernels(bench: Bench) -> None:
    run = Starts(bench).kernels()
    engine = started(run, "a cold start with a pool")
    check(
        engine.late.get("pool"), f"no kernel was compiled by a worker while the engine served: {engine.late}"
    )
    check(
        set(engine.late) == {"pool"}, f"kernels by where they were compiled, while it served: {engine.late}"
    )
    after = [
        event["took"]
        for event in run.events
        if event["what"] == "quiesce" and event["at"] > first(run, "warmed-up")["at"]
    ]
    check(after, f"nothing was quiesced after the end of warm-up: {names(run)}")
    check(
        not engine.pool["workers"], f"workers live after the kernels that they were woken for: {engine.pool}"
    )
    bench.note(f"{engine.late['pool']} kernels; the workers were gone in {max(after):.2f} s")


@feature("vllm.shutdown-leaves-nothing")
def test_shutdown_leaves_nothing(bench: Bench) -> None:
    run = Starts(bench).kernels()
    started(run, "a cold start with a pool")
    closed = first(run, "shutdown")
    check(closed["detail"]["how"] == "asked", f"the pool did not end when it was asked to: {closed}")
    check(not closed["detail"]["left"], f"processes outlived the pool: {closed['detail']['left']}")
    clean(run, "a cold start with a pool")
    check(not run.census["children"], f"children of the engine's process: {run.census['children']}")
    check(run.status == 0, f"the engine's process ended with status {run.status}")
    bench.note(f"the pool was gone after {closed['took']:.2f} s")


@feature("vllm.warm-start-has-no-pool")
def test_warm_start_has_no_pool(bench: Bench) -> None:
    run = Starts(bench).warm(pool=True)
    engine = started(run, "a warm start with a pool")
    check("deferred" in names(run), f"the pool was not kept back: {names(run)}")
    check("warm" not in names(run), f"a sidecar was started: {names(run)}")
    check(engine.pool == {"sidecars": [], "workers": []}, f"there are processes of a pool: {engine.pool}")
    check({*engine.kernels} <= {"cache"}, f"kernels by where they were compiled: {engine.kernels}")
    clean(run, "a warm start with a pool")
    alone = started(Starts(bench).warm(pool=False), "a warm start without a pool")
    seconds = [one.logged.get("init_engine", 0.0) for one in (engine, alone)]
    bench.note(f"init engine {seconds[0]:.2f} s, without a pool {seconds[1]:.2f} s")
