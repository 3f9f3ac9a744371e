# SPDX-License-Identifier: Apache-2.0
"""A GPU that is not there: what must be stubbed so that Inductor generates and Triton compiles for it.

Nothing is ever launched: kernels come down to PTX and binary, launchers are not made, and the wrapper code that
Inductor generates runs dry, on fake tensors. Every stub is put on here, and `OfflineGpu.undo()` takes all of them
off again; what they put in place is in `standins`. Written against torch 2.8 to 2.15; what one of them does not have
is passed over.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pytest_compilepool.targets import Target
from pytest_compilepool.torch_compat import standins
from pytest_compilepool.torch_compat.stubs import Stubs

# c10's table of device guards, one pointer for each kind of device (c10/core/DeviceType.h).
_GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
_CUDA, _META = 1, 14


class NothingIsLaunched(RuntimeError):
    """Something wanted to run on the GPU that is not there."""


class OfflineUnsupported(RuntimeError):
    """This torch, or the lack of a Triton, makes it impossible. Its text is a sentence."""


def unsupported() -> str | None:
    """Why nothing can be compiled here for a GPU that is not there, in a sentence; None where it can.

    Imports torch. Up to 2.9 Dynamo refuses inputs without data that belong to a mode of somebody else's.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    import torch
    from torch._guards import detect_fake_mode

    code = getattr(detect_fake_mode, "__code__", None)
    if code is not None and "tracing context" in code.co_consts:
        return f"Dynamo of torch {torch.__version__} takes no tensors without data (later ones do)"
    return None


class OfflineGpu:
    """The stubs for one target, from `install()` to `undo()`.

    launches: names of the kernels that the generated code would have launched, in order.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.launches: list[str] = []
        self._stubs = Stubs()
        self._installed = False

    def install(self) -> None:
        """Put the stubs on. Imports torch's Inductor and triton. Raises OfflineUnsupported."""
        if self._installed:
            return
        why = unsupported()
        if why is not None:
            raise OfflineUnsupported(f"target {self.target.name}: {why}")
        self._installed = True
        try:
            # Inductor's modules look at torch.cuda while they are imported: with the real one.
            from torch._dynamo import device_interface
            from torch._inductor import async_compile, scheduler, select_algorithm
            from torch._inductor.fx_passes import joint_graph
            from torch._inductor.runtime import triton_helpers, triton_heuristics

            self._torch_cuda(device_interface)
            self._device_guard()
            self._triton_driver(triton_helpers)
            self._heuristics(triton_heuristics)
            self._examples(joint_graph)
            self._algorithms(select_algorithm, scheduler)
            self._workers(async_compile)
            _forget_what_was_asked()
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Take them off. May be called twice."""
        if self._installed:
            self._installed = False
            self._stubs.undo()
            _forget_what_was_asked()

    @contextlib.contextmanager
    def tensors(self) -> Iterator[Any]:
        """The mode in which tensors on this GPU can be made: they have shape, type and device, and no data.

        Without gradients: torch's autograd engine, which traces a backward graph, wants a device (2.13).
        """
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        with torch.no_grad(), warnings.catch_warnings():
            # The generated code asks whether inputs are aligned, by their addresses; it is no bug of the test's.
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                yield mode

    # -- what torch asks of the GPU ------------------------------------------------------------------

    def _torch_cuda(self, device_interface: Any) -> None:
        import torch

        target, stubs = self.target, self._stubs
        properties = standins.properties(target)
        capability = target.capability
        answers: dict[str, Any] = {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "get_device_properties": lambda device=None: properties,
            "get_device_capability": lambda device=None: capability,
            "get_device_name": lambda device=None: properties.name,
            "get_arch_list": lambda: [f"sm_{target.arch}"],
            "is_bf16_supported": lambda including_emulation=True: True,
            "is_tf32_supported": lambda: True,
            "init": lambda: None,
            "_lazy_init": lambda: None,
            "memory_allocated": lambda device=None: 0,
            "_exchange_device": lambda device: 0,
            "_maybe_exchange_device": lambda device: 0,
            "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": lambda new_state, device="cuda": None,
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
            "synchronize": self._refuse("torch.cuda.synchronize()"),
            "_DeviceGuard": standins.NoGuard,
            "is_current_stream_capturing": lambda: False,
        }
        for name, answer in answers.items():
            stubs.set(torch.cuda, name, answer)
        self._torch_internals()
        self._interface(device_interface, properties, answers)

    def _torch_internals(self) -> None:
        """What is asked below `torch.cuda`: which build this is, C functions, the current stream."""
        import torch

        target, stubs = self.target, self._stubs
        if target.backend == "hip":
            stubs.set(torch.version, "hip", standins.HIP)
            stubs.set(torch.version, "cuda", None)
        elif torch.version.hip is not None:
            stubs.set(torch.version, "hip", None)
        # A CPU build of torch has none of these.
        for name, answer in {
            "_cuda_getDevice": lambda: 0,
            "_cuda_getDeviceCount": lambda: 1,
            "_cuda_isInBadFork": lambda: False,
            "_cuda_getCurrentRawStream": standins.no_stream,
        }.items():
            stubs.set(torch._C, name, answer)
        # A build with CUDA makes a real tensor before the first fake one.
        fake_tensor = sys.modules.get("torch._subclasses.fake_tensor")
        for name in ("init_gpu_context", "init_cuda_context"):
            stubs.set(fake_tensor, name, standins.told_nothing, only_if_there=True)
        # Dynamo of 2.15 asks for the current stream before it runs what it compiled.
        for owner in (
            torch._C._dynamo.utils,
            sys.modules.get("torch._dynamo.utils"),
            sys.modules.get("torch._dynamo.guards"),
        ):
            stubs.set(owner, "get_current_stream", standins.stream, only_if_there=True)
        stubs.set(torch._C, "_accelerator_getStream", standins.stream, only_if_there=True)
        stubs.set(torch._C, "_accelerator_setStream", standins.told_nothing, only_if_there=True)
        guards = torch._C._dynamo.guards
        stubs.set(guards, "_empty_strided_cuda", standins.empty_strided)
        stubs.set(guards, "_reinterpret_tensor", standins.reinterpreted, only_if_there=True)

    def _interface(self, device_interface: Any, properties: Any, answers: dict[str, Any]) -> None:
        stubs, interface = self._stubs, device_interface.CudaInterface
        for name in (
            "current_device",
            "set_device",
            "device_count",
            "get_device_properties",
            "memory_allocated",
            "is_bf16_supported",
            "synchronize",
        ):
            stubs.set(interface, name, staticmethod(answers[name]))
        for name in ("exchange_device", "maybe_exchange_device"):
            stubs.set(interface, name, staticmethod(lambda device: 0))
        stubs.set(interface, "get_raw_stream", staticmethod(lambda device: 0))
        stubs.set(interface, "is_available", staticmethod(lambda: True))
        arch = self.target.arch
        compute = properties.gcnArchName if self.target.backend == "hip" else arch
        stubs.set(interface, "get_compute_capability", staticmethod(lambda device=None: compute))
        stubs.item(device_interface.caching_worker_device_properties, "cuda", [properties])
        stubs.item(device_interface.caching_worker_current_devices, "cuda", 0)

    def _device_guard(self) -> None:
        """What C++ asks before it touches a tensor on a device; a CPU build has nobody to ask for CUDA.

        The guard of meta tensors, which have no device either, answers instead. A build with CUDA has one,
        which would look for a driver.
        """
        import torch

        library = os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so")
        table = (ctypes.c_void_p * (_META + 1)).in_dll(ctypes.CDLL(library), _GUARDS)
        before = table[_CUDA]
        table[_CUDA] = table[_META]

        def undo() -> None:
            table[_CUDA] = before

        self._stubs.later(undo)

    # -- what Triton asks ----------------------------------------------------------------------------

    def _triton_driver(self, triton_helpers: Any) -> None:
        from triton.runtime.driver import driver as holder

        name = "_active" if hasattr(holder, "_active") else "active"
        made = standins.driver(self.target, self._refuse("a kernel launch"))
        self._stubs.set(holder, name, made)
        self._stubs.set(triton_helpers, "set_driver_to_gpu", lambda: None)

    def _heuristics(self, triton_heuristics: Any) -> None:
        """Compile, and load nothing: there is nothing to load it into."""
        stubs, launches = self._stubs, self.launches
        autotuner = triton_heuristics.CachingAutotuner

        def run(autotuner: Any, *args: Any, **kwargs: Any) -> None:
            launches.append(str(autotuner.inductor_meta.get("kernel_name") or autotuner.fn.__name__))

        stubs.set(autotuner, "_make_launchers", lambda autotuner: None)
        stubs.set(autotuner, "_dynamic_scale_rblock", lambda autotuner: None, only_if_there=True)
        stubs.set(autotuner, "run", run)
        stubs.set(autotuner, "bench", self._refuse("a benchmark of a kernel"))

    def _examples(self, joint_graph: Any) -> None:
        """Patterns are traced on example tensors, which are real ones even among fake ones: on the CPU then."""
        import torch

        original = joint_graph.lazy_init

        def lazy_init(*args: Any, **kwargs: Any) -> Any:
            return original(torch.device("cpu")) if args or kwargs else original()

        self._stubs.set(joint_graph, "lazy_init", lazy_init)

    def _algorithms(self, select_algorithm: Any, scheduler: Any) -> None:
        """Templates are chosen by a benchmark: without one, the first template is, each time."""

        def benchmark(cache: Any, choices: Any, *args: Any, **kwargs: Any) -> dict[Any, float]:
            extern = getattr(select_algorithm, "ExternKernelCaller", ())
            order = sorted(choices, key=lambda choice: isinstance(choice, extern))
            return {choice: 1.0 + place / 100 for place, choice in enumerate(order)}

        cache = select_algorithm.AlgorithmSelectorCache
        self._stubs.set(cache, "benchmark", benchmark, only_if_there=True)
        # Whether a template takes along what follows it is decided by a benchmark, too: it does.
        owner = scheduler.Scheduler
        self._stubs.set(
            owner, "benchmark_fused_nodes", functools.partial(standins.told, (1.0, "")), only_if_there=True
        )
        self._stubs.set(owner, "benchmark_codegened_module", standins.compiled_candidate, only_if_there=True)

    def _workers(self, async_compile: Any) -> None:
        """A worker knows nothing of this process's stubs: the job that is sent puts on those that it needs."""
        if hasattr(async_compile, "_worker_compile_triton"):
            job = functools.partial(standins.worker_compile_triton, self.target.name)
            self._stubs.set(async_compile, "_worker_compile_triton", job)

    def _refuse(self, what: str) -> Callable[..., Any]:
        text = (
            f"{what}: kernels are compiled for {self.target.name} ({self.target.model}), which is not in "
            "this machine; nothing can be launched on it"
        )

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NothingIsLaunched(text)

        return refuse


def _forget_what_was_asked() -> None:
    """Answers about the GPU are memoised in many places: what was asked of another one must not stay."""
    for name in ("torch.utils._triton", "torch._inductor.utils", "torch._inductor.runtime.hints"):
        for value in list(vars(sys.modules.get(name, types)).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()
    hints = sys.modules.get("torch._inductor.runtime.hints")
    codecache = sys.modules.get("torch._inductor.codecache")
    for owner, method in (
        (getattr(hints, "DeviceProperties", None), "create"),
        (getattr(codecache, "CacheBase", None), "get_system"),
    ):
        function = getattr(owner, method, None)
        clear = getattr(function, "cache_clear", None) or getattr(
            getattr(function, "__func__", None), "cache_clear", None
        )
        if clear is not None:
            clear()
