# SPDX-License-Identifier: Apache-2.0
"""What the fixture `compile_target` hands out: this very process compiles for a GPU that is not there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_compilepool.fresh.elsewhere import on_the_target
from pytest_compilepool.parity.artifacts import Artifact, read_artifacts
from pytest_compilepool.targets import Target
from pytest_compilepool.torch_compat.offline import NothingIsLaunched, OfflineGpu

__all__ = ["CompileTarget", "NothingIsLaunched", "offline"]


class CompileTarget:
    """A GPU that is not there. Kernels are compiled for it, here or in the workers of a pool; none is launched.

    target: which; triton: Triton's cache folder, where the kernels end up.
    """

    def __init__(self, target: Target, gpu: OfflineGpu, triton: Path) -> None:
        self.target = target
        self._gpu = gpu
        self._triton = triton

    @property
    def name(self) -> str:
        """Its name, such as `cuda:90`."""
        return self.target.name

    @property
    def launches(self) -> list[str]:
        """The kernels that would have been launched so far, in order."""
        return list(self._gpu.launches)

    @property
    def artifacts(self) -> list[Artifact]:
        """The kernels that were compiled so far, with their files."""
        return read_artifacts(self._triton)

    @contextlib.contextmanager
    def tensors(self) -> Iterator[None]:
        """Within this block tensors with `device="cuda"` can be made; they have shape, type and no data.

        Gradients are off in it: a backward graph cannot be made without a device.
        """
        with self._gpu.tensors():
            yield

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function (compiled, as a rule) with tensors of the same shapes on this GPU.

        args, kwargs: tensors in host memory and `nn.Module`s stand for such on the GPU; other values stay. Returns
        what it returned, the tensors without data. A module is changed in place: give it one of its own.
        """
        with self.tensors():
            moved = on_the_target(function) if hasattr(function, "parameters") else function
            return moved(*on_the_target(args), **on_the_target(kwargs))


@contextlib.contextmanager
def offline(target: Target, triton: Path) -> Iterator[CompileTarget]:
    """The stubs on, for the block. Raises what `OfflineGpu.install` raises."""
    gpu = OfflineGpu(target)
    gpu.install()
    try:
        yield CompileTarget(target, gpu, triton)
    finally:
        gpu.undo()
