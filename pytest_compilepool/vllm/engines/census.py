# SPDX-License-Identifier: Apache-2.0
"""What of vLLM's and torch's is not as they make it themselves: where this package has laid hands on a process."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from pytest_compilepool import vllm_compat

_OWN = "pytest_compilepool"
# Of the interpreter that takes the census, not of vLLM's plugin.
_WITHOUT = (
    "COMPILEPOOL_",
    "VLLM_COMPILE_POOL_EVENTS",
    "VLLM_PLUGINS",
    "VLLM_CACHE_ROOT",
    "TMPDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
)


def take() -> dict[str, Any]:
    """methods: where each method that the lifecycle may wrap is written (`module.name` of its code); instance: attributes of
    it on torch's and vLLM's classes by name; settings, environment, threads: of this process, by name."""
    return {
        "methods": _methods(),
        "settings": _settings(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if not name.startswith(_WITHOUT)
        },
        "threads": sorted({thread.name.split("-")[0] for thread in threading.enumerate()}),
        "pools": len(getattr(sys.modules.get("torch._inductor.async_compile"), "_pool_set", ())),
    }


def _methods() -> dict[str, str]:
    found = {}
    seam, asynchronous = vllm_compat.SEAM, "torch._inductor.async_compile"
    wanted = [(seam.module, seam.owner, name) for name in (seam.method, "init_worker")]
    wanted += [(asynchronous, "AsyncCompile", name) for name in ("wakeup", "use_process_pool", "warm_pool")]
    for module, owner, name in wanted:
        kind = getattr(sys.modules.get(module), owner, None)
        method = None if kind is None else kind.__dict__.get(name)
        function = getattr(method, "__func__", method)
        code = getattr(function, "__code__", None)
        found[f"{owner}.{name}"] = "-" if code is None else _place(code.co_filename)
    return found


def _place(file: str) -> str:
    """A file as seen from the package that it is in."""
    for name in (f"/{_OWN}/", "/torch/", "/vllm/"):
        if name in file:
            return name[1:] + file.rpartition(name)[2]
    return file


def _settings() -> dict[str, Any]:
    config = sys.modules.get("torch._inductor.config")
    names = (
        "compile_threads",
        "worker_start_method",
        "quiesce_async_compile_pool",
        "quiesce_async_compile_time",
    )
    return {name: getattr(config, name, None) for name in names}
