# SPDX-License-Identifier: Apache-2.0
"""Kernels that are compiled by somebody else, or otherwise."""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Any

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "Kernels are compiled in the process that sends them.",
    kills="kernels.go-through-the-pool",
    requirements=REFERENCE,
)
def kernels_stay_in_the_parent(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        from pytest_compilepool.torch_compat.pools import kernel_of_job

        real = ReferencePool.submit

        def submit(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            if not kernel_of_job(args)[0]:
                return real(self, function, *args, **kwargs)
            future: Future[Any] = Future()
            future.set_result(function(*args, **kwargs))
            return future

        ReferencePool.submit = submit


@mutant(
    "torch compiles each kernel by itself, however ready its pool is.",
    kills=("kernels.go-through-the-pool", "kernels.before-ready-are-right"),
    requirements=TORCH,
)
def the_pool_is_not_used(side: str) -> None:
    if side == "parent":
        from pytest_compilepool.torch_compat.probe import inductor

        owner = inductor("async_compile").AsyncCompile
        real, used = owner.triton, owner.__dict__["use_process_pool"]

        def triton(self: Any, *args: Any, **kwargs: Any) -> Any:
            owner.use_process_pool = classmethod(lambda cls: False)
            try:
                return real(self, *args, **kwargs)
            finally:
                owner.use_process_pool = used

        owner.triton = triton


@mutant(
    "Workers do not know an option of the compiler.",
    kills="kernels.same-as-single-threaded",
    requirements=REFERENCE,
)
def an_option_is_not_handed_on(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.take_over

        def take_over(surroundings: dict[str, Any]) -> None:
            real(surroundings)
            os.environ.pop("TRITON_DISABLE_LINE_INFO", None)

        worker.take_over = take_over


@mutant(
    "The workers of torch's pool do not know an option of the compiler.",
    kills="kernels.same-as-single-threaded",
    requirements=TORCH,
)
def an_option_is_not_handed_on_by_torch(side: str) -> None:
    if side == "sidecar":
        os.environ.pop("TRITON_DISABLE_LINE_INFO", None)


@mutant("What torch's workers compile is not kept.", kills="kernels.same-counters", requirements=TORCH)
def artifacts_are_not_kept(side: str) -> None:
    if side == "sidecar":
        from torch._inductor.runtime import compile_tasks

        real = compile_tasks._worker_compile_triton

        def compile_elsewhere(load: Any, environment: dict[str, str], *rest: Any) -> Any:
            elsewhere = os.path.join(os.environ["TMPDIR"], f"of-worker-{os.getpid()}")
            return real(load, {**environment, "TRITON_CACHE_DIR": elsewhere}, *rest)

        compile_tasks._worker_compile_triton = compile_elsewhere


@mutant(
    "An error of a worker is told by its class alone.",
    kills="kernels.failure-names-the-kernel",
    requirements=REFERENCE,
)
def only_the_class_of_an_error(side: str) -> None:
    if side == "sidecar":
        import pickle

        from reference_pool import worker
        from reference_pool.errors import RemoteError

        worker.explain = lambda error: pickle.dumps((RemoteError(f"{type(error).__name__} in a worker"), ""))


@mutant(
    "A kernel that does not compile ends its worker.",
    kills="kernels.failure-names-the-kernel",
    requirements=REFERENCE,
)
def a_failure_ends_the_worker(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.explain

        def explain(error: BaseException) -> bytes:
            if "never_compiles" in str(error):
                os._exit(1)
            return real(error)

        worker.explain = explain


@mutant(
    "A pool that is not ready refuses jobs.", kills="kernels.before-ready-are-right", requirements=REFERENCE
)
def refused_before_ready(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool
        from reference_pool.errors import PoolError

        real = ReferencePool.submit

        def submit(self: Any, *job: Any) -> Any:
            if not self.ready.done():
                raise PoolError("the pool is not ready")
            return real(self, *job)

        ReferencePool.submit = submit
    else:
        import time

        # Longer than Inductor takes until it sends its first kernel, also on a busy machine.
        time.sleep(8)


@mutant(
    "The death of a worker is told without its job.",
    kills="kernels.worker-death-names-the-kernel",
    requirements=REFERENCE,
)
def a_death_without_its_job(side: str) -> None:
    if side == "parent":
        from reference_pool import pool

        pool.in_words = lambda *job: "some job"
