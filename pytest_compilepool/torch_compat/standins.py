# SPDX-License-Identifier: Apache-2.0
"""What stands in for torch's and Triton's own where a GPU would be asked, here and in a worker that gets a job."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from pytest_compilepool.targets import TARGETS, Target

HIP = "6.4.0"

_CUDA = 1  # the kind of device, by c10/core/DeviceType.h


def worker_compile_triton(target: str, *args: Any, **kwargs: Any) -> Any:
    """torch's job of that name, in a worker that is to compile for a GPU which is not there.

    Triton takes the target from the kernel's source, but up to torch 2.13 a driver is looked for all the same;
    and the heuristics ask `torch.cuda.is_available()` and `torch.version.hip` rather than the source (seen in
    2.13: a softmax got one warp in the parent and four in the worker).
    """
    import torch
    from torch._inductor.runtime import triton_helpers
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    triton_helpers.set_driver_to_gpu = nothing
    torch.cuda.is_available = yes
    if not hasattr(torch._C, "_cuda_getCurrentRawStream"):
        # A candidate that is to be benchmarked imports it; a CPU build of torch has none.
        torch._C._cuda_getCurrentRawStream = no_stream
    if TARGETS[target].backend == "hip":
        torch.version.hip, torch.version.cuda = HIP, None
    return _worker_compile_triton(*args, **kwargs)


def nothing() -> None:
    """Stands in for a function that has nothing to do here."""


def told(answer: Any, *args: Any, **kwargs: Any) -> Any:
    """Gives the same answer to every question."""
    return answer


def stream(device: Any = None) -> Any:
    """The default stream of the GPU that is not there."""
    import torch

    return torch.Stream(stream_id=0, device_index=0, device_type=_CUDA)


def told_nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for a function that sets something."""


def no_stream(device: int) -> int:
    """Stands in for the question which stream is the current one."""
    return 0


def compiled_candidate(scheduler: Any, module: Any, *args: Any, **kwargs: Any) -> tuple[float, str]:
    """Stands in for the benchmark of a candidate: it is compiled, as it would be for that, and it is fast."""
    module.triton_.precompile()
    return 0.5, ""


def yes() -> bool:
    """Stands in for a question whether there is a GPU."""
    return True


class NoGuard:
    """Stands in for `torch.cuda._DeviceGuard`."""

    def __init__(self, index: Any = None) -> None:
        self.idx = index

    def __enter__(self) -> NoGuard:
        return self

    def __exit__(self, *told: Any) -> None:
        return None


def empty_strided(size: Any, stride: Any, dtype: Any) -> Any:
    """An empty tensor on the GPU, which the mode of fake tensors makes one without data."""
    import torch

    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


def reinterpreted(tensor: Any, size: Any, stride: Any, offset: int = 0) -> Any:
    """The same memory in another form; torch's own makes a tensor of the device meta of it (2.15)."""
    return tensor.as_strided(size, stride, tensor.storage_offset() + offset)


def properties(target: Target) -> Any:
    """What Inductor reads of `torch.cuda.get_device_properties()`."""
    return types.SimpleNamespace(
        name=f"{target.model} (not there)",
        major=target.capability[0],
        minor=target.capability[1],
        multi_processor_count=target.processors,
        regs_per_multiprocessor=target.registers,
        max_threads_per_multi_processor=target.threads,
        max_threads_per_block=1024,
        warp_size=target.warp_size,
        total_memory=target.memory,
        shared_memory_per_block=target.shared,
        shared_memory_per_block_optin=target.shared_optin,
        shared_memory_per_multiprocessor=target.shared_optin + 1024,
        L2_cache_size=50 * 2**20,
        is_integrated=0,
        is_multi_gpu_board=0,
        gcnArchName=str(target.arch) if target.backend == "hip" else "",
        clock_rate=1980000,
        memory_clock_rate=2619000,
        memory_bus_width=5120,
        uuid="GPU-00000000-0000-0000-0000-000000000000",
    )


def driver(target: Target, refuse: Callable[..., Any]) -> Any:
    """A driver of Triton's for the target, of the class that Inductor looks for, which opens no library."""
    from triton.backends.compiler import GPUTarget

    if target.backend == "hip":
        from triton.backends.amd.driver import HIPDriver as Base
    else:
        from triton.backends.nvidia.driver import CudaDriver as Base

    class NoDriver(Base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.launcher_cls = refuse
            self.utils = types.SimpleNamespace(
                load_binary=refuse,
                get_device_properties=lambda device: {
                    "max_shared_mem": target.shared_optin,
                    "multiprocessor_count": target.processors,
                    "warpSize": target.warp_size,
                    "max_num_regs": target.registers,
                },
            )
            self.get_current_device = lambda: 0
            self.set_current_device = lambda device: None
            self.get_current_stream = lambda device=0: 0
            self.get_device_capability = lambda device=0: target.capability

        def get_current_target(self) -> Any:
            return GPUTarget(target.backend, target.arch, target.warp_size)

        def get_device_interface(self) -> Any:
            import torch

            return torch.cuda

        @staticmethod
        def is_active() -> bool:
            return True

    return NoDriver()
