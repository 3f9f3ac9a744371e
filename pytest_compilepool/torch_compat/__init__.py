# SPDX-License-Identifier: Apache-2.0
"""The only door to torch's private names: what this torch can do, its pools, its settings.

Importing this package does not import torch, nor the rooms of this package that one does not use;
calling into it does, where its docstring says so. Written against torch 2.8 to 2.15 by reading the released
wheels; nothing here compares versions, everything is looked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_compilepool.torch_compat.compiles import CompileWatch, TritonCompile
    from pytest_compilepool.torch_compat.creation import CreationWatch, Creator
    from pytest_compilepool.torch_compat.installed import inductor_loaded, installed_version
    from pytest_compilepool.torch_compat.pools import PoolRef, live_pools, memoised_pool
    from pytest_compilepool.torch_compat.probe import Capabilities, TorchUnavailable, capabilities
    from pytest_compilepool.torch_compat.settings import (
        cache_roots,
        clear_memory_caches,
        config_restore,
        config_snapshot,
        counters_restore,
        counters_snapshot,
        empty_gpu_cache,
        gpu_memory,
    )
    from pytest_compilepool.torch_compat.timers import timer_thread_is_ending

_ROOMS = {
    "compiles": ("CompileWatch", "TritonCompile"),
    "creation": ("CreationWatch", "Creator"),
    "installed": ("inductor_loaded", "installed_version"),
    "pools": ("PoolRef", "live_pools", "memoised_pool"),
    "probe": ("Capabilities", "TorchUnavailable", "capabilities"),
    "settings": (
        "cache_roots",
        "clear_memory_caches",
        "config_restore",
        "config_snapshot",
        "counters_restore",
        "counters_snapshot",
        "empty_gpu_cache",
        "gpu_memory",
    ),
    "timers": ("timer_thread_is_ending",),
}

__all__ = [
    "Capabilities",
    "CompileWatch",
    "CreationWatch",
    "Creator",
    "PoolRef",
    "TorchUnavailable",
    "TritonCompile",
    "cache_roots",
    "capabilities",
    "clear_memory_caches",
    "config_restore",
    "config_snapshot",
    "counters_restore",
    "counters_snapshot",
    "empty_gpu_cache",
    "gpu_memory",
    "inductor_loaded",
    "installed_version",
    "live_pools",
    "memoised_pool",
    "timer_thread_is_ending",
]


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
            # The next look-up finds it without coming here.
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
