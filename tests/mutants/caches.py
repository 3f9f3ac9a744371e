# SPDX-License-Identifier: Apache-2.0
"""Cache folders that are not where, or not what, the sender thinks."""

from __future__ import annotations

import os
import pickle
from typing import Any

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant

_FOLDERS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def _environment(change: Any) -> None:
    """A worker's environment is the sender's with what `change` makes of it."""
    from reference_pool import worker

    real = worker.take_over

    def take_over(surroundings: dict[str, Any]) -> None:
        environment = surroundings["environment"]
        real({**surroundings, "environment": {**environment, **change(environment)}})

    worker.take_over = take_over


@mutant(
    "Each worker has a cache folder of its own.",
    kills="caches.concurrent-writers",
    requirements=REFERENCE,
)
def a_folder_for_each_worker(side: str) -> None:
    if side == "sidecar":
        _environment(lambda sent: {"TRITON_CACHE_DIR": f"{sent['TRITON_CACHE_DIR']}-{os.getpid()}"})


@mutant(
    "A binary is completed when the kernel is already said to be there.",
    kills="caches.killed-writer",
    requirements=REFERENCE,
)
def a_binary_is_completed_late(side: str) -> None:
    if side == "sidecar":
        import time

        real = os.replace
        late: dict[str, bytes] = {}

        def replace(source: str, target: str) -> None:
            name = str(target)
            if name.endswith(".cubin"):
                with open(source, "rb") as file:
                    late[name] = file.read()
                with open(source, "wb") as file:
                    file.write(late[name][: len(late[name]) // 2])
            real(source, target)
            if "__grp__" in name:
                time.sleep(0.5)
                while late:
                    path, data = late.popitem()
                    with open(path, "wb") as file:
                        file.write(data)

        os.replace = replace


@mutant(
    "A worker takes it that a cache folder stays.",
    kills="caches.deleted-while-in-use",
    requirements=REFERENCE,
)
def folders_are_taken_for_granted(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.run

        def run(payload: bytes) -> tuple[int, bytes]:
            folder = os.environ["TRITON_CACHE_DIR"]
            marker = f"{folder}-was-there"
            if os.path.exists(marker) and not os.path.isdir(folder):
                return worker.frames.ERROR, worker.explain(FileNotFoundError(folder))
            answer = real(payload)
            if os.path.isdir(folder):
                open(marker, "w").close()
            return answer

        worker.run = run


@mutant(
    "An error of the system is told by its number.", kills="caches.unwritable-folder", requirements=REFERENCE
)
def errors_without_their_path(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker
        from reference_pool.errors import RemoteError

        real = worker.explain

        def explain(error: BaseException) -> bytes:
            if isinstance(error, OSError):
                return pickle.dumps((RemoteError(f"{type(error).__name__}: errno {error.errno}"), ""))
            return real(error)

        worker.explain = explain


@mutant(
    "torch's job is sent without the names of the cache folders.",
    kills="caches.follow-the-parent",
    requirements=TORCH,
)
def folders_are_not_sent(side: str) -> None:
    if side == "sidecar":
        from torch._inductor.runtime import compile_tasks

        real = compile_tasks._worker_compile_triton
        compile_tasks._worker_compile_triton = lambda load, environment, *rest: real(load, {}, *rest)


@mutant(
    "A cache folder that is no longer named stays in the worker.",
    kills="knows.environment-of-the-last-job",
    requirements=REFERENCE,
)
def a_folder_stays_named(side: str) -> None:
    if side == "sidecar":
        _environment(
            lambda sent: {
                name: os.environ[name] for name in _FOLDERS if name not in sent and name in os.environ
            }
        )
