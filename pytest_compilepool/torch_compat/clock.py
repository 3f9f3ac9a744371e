# SPDX-License-Identifier: Apache-2.0
"""Where the time of a compile goes: Triton in this process, waiting for a pool, and torch's own account of the rest."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from pytest_compilepool.torch_compat.probe import inductor


class CompileClock:
    """Seconds that this process spends in `AsyncCompile.triton` and in `AsyncCompile.wait`, from `start()` on.

    Without a pool the first compiles each kernel; with one it sends it off, and the second waits for it.
    each: (name, seconds) of every kernel that the first was given, in order.
    """

    def __init__(self) -> None:
        self.seconds = {"triton": 0.0, "wait": 0.0}
        self.calls = {"triton": 0, "wait": 0}
        self.each: list[tuple[str, float]] = []
        self._depth = 0

    def start(self) -> None:
        """Begin; for the rest of the life of this process. Imports torch's `async_compile`."""
        owner = inductor("async_compile").AsyncCompile
        for name in self.seconds:
            setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def timed(*args: Any, **named: Any) -> Any:
            self.calls[name] += 1
            self._depth += 1
            began = time.monotonic()
            try:
                return original(*args, **named)
            finally:
                self._depth -= 1
                if not self._depth:  # a kernel that is compiled while another is waited for is counted once
                    took = time.monotonic() - began
                    self.seconds[name] += took
                    if name == "triton":
                        self.each.append((_kernel(args, named), took))

        return timed

    def read(self) -> dict[str, float]:
        """So far: triton, wait (seconds), kernels (calls of `triton`)."""
        return {**self.seconds, "kernels": float(self.calls["triton"])}


def _kernel(args: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Name of the kernel that `AsyncCompile.triton(self, kernel_name, ...)` was given."""
    return str(named.get("kernel_name", args[1] if len(args) > 1 else "unknown"))


def phases() -> dict[str, float]:
    """torch's own account, `torch._dynamo.utils.compilation_time_metrics`: seconds by phase, those inside others too."""
    utils = sys.modules.get("torch._dynamo.utils")
    metrics = getattr(utils, "compilation_time_metrics", {})
    return {str(name): round(float(sum(times)), 4) for name, times in metrics.items()}
