# SPDX-License-Identifier: Apache-2.0
"""Pools without a sidecar: the reference pool has none, so these are torch's."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from mutants import TORCH
from pytest_compilepool.conformance.mutant import mutant


def _executor() -> Any:
    from pytest_compilepool.torch_compat.probe import inductor

    return inductor("async_compile").TrackedProcessPoolExecutor


@mutant(
    "Shutting down a pool of forked or spawned workers does nothing.",
    kills=("start.fork", "start.spawn"),
    requirements=TORCH,
)
def workers_stay(side: str) -> None:
    if side == "parent":
        _executor().shutdown = lambda self, *args, **kwargs: None


@mutant("A forked pool does its jobs in the process itself.", kills="start.fork", requirements=TORCH)
def done_in_the_process(side: str) -> None:
    if side == "parent":

        def submit(self: Any, function: Any, *args: Any, **kwargs: Any) -> Future[Any]:
            import threading

            future: Future[Any] = Future()

            def work() -> None:
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

            threading.Thread(target=work, daemon=True).start()
            return future

        _executor().submit = submit
