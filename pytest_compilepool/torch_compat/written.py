# SPDX-License-Identifier: Apache-2.0
"""Where the methods that vLLM's lifecycle wraps are written, so that one can see that they are torch's own again."""

from __future__ import annotations

import sys
from typing import Any

_MODULE = "torch._inductor.async_compile"
_SETTINGS = (
    "compile_threads",
    "worker_start_method",
    "quiesce_async_compile_pool",
    "quiesce_async_compile_time",
)


def methods() -> dict[str, str]:
    """File of the code of each, by `AsyncCompile.name`; "-" for one that is not there. Imports nothing."""
    owner = getattr(sys.modules.get(_MODULE), "AsyncCompile", None)
    return {
        f"AsyncCompile.{name}": file_of(owner, name) for name in ("wakeup", "use_process_pool", "warm_pool")
    }


def file_of(owner: Any, name: str) -> str:
    """File of the code of a class's own method, "-" where it has none. What is wrapped is not looked through."""
    method = None if owner is None else owner.__dict__.get(name)
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    return "-" if code is None else str(code.co_filename)


def settings() -> dict[str, Any]:
    """Inductor's settings about the pool, None for one that there is not."""
    config = sys.modules.get("torch._inductor.config")
    return {name: getattr(config, name, None) for name in _SETTINGS}


def pools() -> int:
    """How many pools torch holds."""
    return len(getattr(sys.modules.get(_MODULE), "_pool_set", ()))
