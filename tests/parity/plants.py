# SPDX-License-Identifier: Apache-2.0
"""Differences planted into the side that has a pool: what `before=` calls in each interpreter, and workers run.

Each acts on one kernel, by a part of its name, so that several can be planted at once.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch


def with_a_pool() -> bool:
    return int(os.environ["TORCHINDUCTOR_COMPILE_THREADS"]) > 1


def several() -> None:
    """A difference of each kind, each in another kernel."""
    if not with_a_pool():
        return
    from torch._inductor import async_compile

    # After the offline stubs, which have replaced the job, too.
    async_compile._worker_compile_triton = functools.partial(
        wrong_worker, async_compile._worker_compile_triton
    )
    original = async_compile.AsyncCompile.triton

    def triton(self: Any, kernel_name: str, source_code: str, device_str: str = "cuda") -> Any:
        if "index_mul" not in kernel_name:
            return original(self, kernel_name, source_code, device_str)
        threads = async_compile.config.compile_threads
        async_compile.config.compile_threads = 1  # so this one is compiled in the parent
        try:
            return original(self, kernel_name, source_code, device_str)
        finally:
            async_compile.config.compile_threads = threads

    async_compile.AsyncCompile.triton = triton


def in_the_parent() -> None:
    """No kernel goes to the pool, though there is one."""
    from torch._inductor import async_compile

    async_compile.AsyncCompile.use_process_pool = classmethod(lambda cls: False)


def wrong_worker(job: Any, load_kernel: Any, extra_env: Any, extra_config: Any) -> Any:
    """Runs in a worker: torch's job, with one thing done wrong."""
    from triton.backends.nvidia.compiler import CUDABackend

    name = load_kernel.args[0]
    if "sin" in name:
        return job(functools.partial(with_more_warps, load_kernel), extra_env, extra_config)
    make_ptx, make_cubin = CUDABackend.make_ptx, CUDABackend.make_cubin
    if "cumsum" in name:
        CUDABackend.make_ptx = functools.partialmethod(other_instruction, make_ptx)
    if "softmax" in name:
        CUDABackend.make_cubin = functools.partialmethod(more_shared_memory, make_cubin)
    try:
        result = job(load_kernel, extra_env, extra_config)
    finally:
        CUDABackend.make_ptx, CUDABackend.make_cubin = make_ptx, make_cubin
    if "abs_sum" in name:
        import shutil

        for folder in os.scandir(os.environ["TRITON_CACHE_DIR"]):
            if any("abs_sum" in file for file in os.listdir(folder.path)):
                shutil.rmtree(folder.path)
    return result


def with_more_warps(load_kernel: Any) -> Any:
    kernel = load_kernel()
    for config in kernel.configs:
        config.num_warps *= 2
    return kernel


def other_instruction(self: Any, original: Any, src: Any, metadata: Any, *rest: Any) -> Any:
    text = original(self, src, metadata, *rest)
    assert "add.f32" in text
    return text.replace("add.f32", "sub.f32", 1)


def more_shared_memory(self: Any, original: Any, src: Any, metadata: Any, *rest: Any) -> Any:
    metadata["shared"] += 16
    return original(self, src, metadata, *rest)


def torch_ptxas() -> str | None:
    """The ptxas in torch's wheel (2.9 to 2.12), which torch tells Triton to use once it compiles a kernel."""
    import torch

    file = os.path.join(os.path.dirname(torch.__file__), "bin", "ptxas")
    return file if os.access(file, os.X_OK) else None


# -- functions for the checks --------------------------------------------------------------------------


def off_by_one_bit(x: Any) -> Any:
    """The sines of x; with a pool, the last one is off by its last bit."""
    import torch

    y = x.sin()
    if with_a_pool():
        y.view(-1)[-1:] = torch.nextafter(y.view(-1)[-1:], torch.tensor(2.0))
    return y


def off_by_a_thousandth(x: Any) -> Any:
    return x.sin() + (0.001 if with_a_pool() else 0.0)


def never_the_same(x: Any) -> Any:
    import time

    return x + (time.monotonic_ns() % 1_000_003)


def changes_its_argument(x: Any) -> None:
    """Gives back nothing; with a pool the last element it writes is another one."""
    x.mul_(2)
    if with_a_pool():
        x[-1] += 1


def strides(x: Any) -> Any:
    y = x.reshape(8, 8)[:, ::2]
    return y.clone() if with_a_pool() else y


def gradient(w: Any) -> Any:
    (w * 2).sum().backward()
    if with_a_pool():
        w.grad.mul_(2)
    return 1


def weights(module: Any) -> int:
    if with_a_pool():
        module.weight.data.add_(1)
    return 1


def longer(items: Any) -> int:
    if with_a_pool():
        items.append(5)
    return 1


def leaf() -> Any:
    import torch

    return (torch.ones(3, requires_grad=True),)


class Counting(torch.nn.Module):
    """Changes its own state, otherwise with a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.calls += 1 + with_a_pool()
        return x


def parent_again() -> None:
    """With a pool, throws away what a worker has compiled and does it again in the parent."""
    if not with_a_pool():
        return
    import shutil

    from torch._inductor.runtime.triton_heuristics import CachingAutotuner

    original = CachingAutotuner._precompile_worker

    def again(self: Any) -> Any:
        if self.compile_results and getattr(self, "_reload_kernel", None):
            kernel = self._reload_kernel()
            self.fn, self.configs, self.compile_results = kernel.fn, kernel.configs, []
            for folder in os.listdir(os.environ["TRITON_CACHE_DIR"]):
                shutil.rmtree(os.path.join(os.environ["TRITON_CACHE_DIR"], folder))
        return original(self)

    CachingAutotuner._precompile_worker = again


def removes_the_caches(x: Any) -> Any:
    import shutil

    shutil.rmtree(os.path.dirname(os.environ["TRITON_CACHE_DIR"]))
    return x


def adds_up(total: Any) -> Any:
    """Changes what it is given, the same way each time."""
    total += 1
    return total.sum()


def moves_the_cache(x: Any) -> Any:
    os.environ["TRITON_CACHE_DIR"] = os.environ["ELSEWHERE"]
    return x * 2


def clears_the_counters(x: Any) -> Any:
    import torch._dynamo.utils

    # Dynamo counts the first call, and no kernel has to be compiled for that.
    y = torch.compile(torch.sum, backend="eager")(x * 2)
    torch._dynamo.utils.counters.clear()
    return y


def compiles_in_the_calling_thread(x: Any) -> Any:
    """Two C++ kernels; the second one is compiled where the pool's threads are not asked."""
    import torch
    from torch._inductor import config

    y = torch.compile(torch.sin)(x)
    with config.patch(compile_threads=1):
        return torch.compile(torch.cos)(y)


def dies_at_the_end(x: Any) -> Any:
    """After it has answered."""
    import atexit

    atexit.register(os.abort)
    return x * 2


def object_output(x: Any) -> Any:
    return {"here": [x, object()]}


def on_a_gpu() -> Any:
    import torch

    return (torch.ones(3, device="cuda"),)


def fails_with_a_pool(x: Any) -> Any:
    if with_a_pool():
        raise OSError("planted for the pool only")
    return x


def fails(x: Any) -> Any:
    raise OSError("planted for everybody")


def dies(x: Any) -> Any:
    os.abort()


def hangs(x: Any) -> Any:
    import time

    time.sleep(600)


def compiled_sum(x: Any) -> Any:
    import torch

    return torch.compile(torch.sum)(x * 2)


class Doubling:
    """A callable object that can be pickled."""

    def __call__(self, x: Any) -> Any:
        return x * 2


class Deaf:
    """A callable object that cannot."""

    def __init__(self) -> None:
        self.lock = lambda: None

    def __call__(self, x: Any) -> Any:
        return x
