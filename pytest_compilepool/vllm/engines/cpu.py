# SPDX-License-Identifier: Apache-2.0
"""vLLM's own compile backend on its CPU platform, which would put stock Inductor in its place.

With it splitting, artifacts, the AOT cache and every counter are as on a GPU, but for kernels (C++) and captures (none).
"""

from __future__ import annotations

import importlib
from typing import Any

_MARK = "_compilepool_keeps_vllm_compile"


def is_cpu() -> bool:
    """Whether this vLLM computes on CPUs."""
    return bool(importlib.import_module("vllm.platforms").current_platform.is_cpu())


def keep_vllm_compile() -> None:
    """Have it keep the mode VLLM_COMPILE. For the rest of the life of this process; before an engine is made."""
    platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform
    if getattr(platform, _MARK, False):
        return
    setattr(platform, _MARK, True)
    config = importlib.import_module("vllm.config")
    original = platform.check_and_update_config.__func__

    def kept(cls: Any, vllm_config: Any) -> None:
        compilation = vllm_config.compilation_config
        asked = compilation.mode
        original(cls, vllm_config)
        if asked == config.CompilationMode.VLLM_COMPILE:
            compilation.mode = asked
            compilation.backend = "inductor"
            compilation.cudagraph_mode = config.CUDAGraphMode.NONE
            compilation.compile_sizes = compilation.compile_sizes or []

    platform.check_and_update_config = classmethod(kept)
    platform.opaque_attention_op = classmethod(lambda cls: True)
    # It names operators that only a CUDA build has.
    fixes = importlib.import_module("vllm.compilation.passes.utility.fix_functionalization")
    fixes.FixFunctionalizationPass.__call__ = lambda self, graph: None
