# SPDX-License-Identifier: Apache-2.0
"""A worker that compiles real kernels, for a GPU that is not there, where vLLM's does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def config(**changes: Any) -> Any:
    """As much of a `VllmConfig` as is read."""
    return SimpleNamespace(
        compute_hash=lambda: changes.get("hash", "one"),
        model_config=SimpleNamespace(enforce_eager=changes.get("enforce_eager", False)),
        compilation_config=SimpleNamespace(mode=changes.get("mode", 3)),
        parallel_config=SimpleNamespace(world_size=changes.get("world_size", 1), data_parallel_size_local=1),
    )


class Runner:
    def __init__(self, does: Any) -> None:
        self.does = does

    def profile_run(self) -> None:
        self.does("profile_run")

    def profile_cudagraph_memory(self) -> int:
        self.does("profile_cudagraph_memory")
        return 7

    def capture_model(self) -> int:
        self.does("capture_model")
        return 8


class Worker:
    def __init__(self, does: Any) -> None:
        self.does = does
        self.model_runner = Runner(does)

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        self.does("load_model")

    def determine_available_memory(self) -> int:
        self.model_runner.profile_run()
        return self.model_runner.profile_cudagraph_memory()

    def compile_or_warm_up_model(self) -> float:
        self.does("compile_sizes")
        self.model_runner.capture_model()
        return 1.5

    def shutdown(self) -> None:
        self.does("shutdown")


class WorkerWrapperBase:
    def __init__(self, vllm_config: Any, does: Any) -> None:
        self.vllm_config = vllm_config
        self._does = does

    def init_worker(self, all_kwargs: list[dict[str, Any]]) -> None:
        self._does("init_worker")

    def init_device(self) -> str:
        self._does("init_device")
        self.worker = Worker(self._does)
        return "done"
