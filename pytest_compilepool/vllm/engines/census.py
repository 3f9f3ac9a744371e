# SPDX-License-Identifier: Apache-2.0
"""What of vLLM's and torch's is not as they make it themselves: where this package has laid hands on a process."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from pytest_compilepool import vllm_compat
from pytest_compilepool.torch_compat import written

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
    """methods: in which file each method that the lifecycle may wrap is written, as seen from its package; settings:
    Inductor's about the pool; environment, threads: of this process, by name; pools: how many torch holds."""
    return {
        "methods": {name: _place(file) for name, file in _methods().items()},
        "settings": written.settings(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if not name.startswith(_WITHOUT)
        },
        "threads": sorted({thread.name.split("-")[0] for thread in threading.enumerate()}),
        "pools": written.pools(),
    }


def _methods() -> dict[str, str]:
    found = written.methods()
    for seam in (vllm_compat.SEAM, vllm_compat.EARLY, vllm_compat.ENGINE):
        owner = getattr(sys.modules.get(seam.module), seam.owner, None)
        found[f"{seam.owner}.{seam.method}"] = written.file_of(owner, seam.method)
    return found


def _place(file: str) -> str:
    for name in (f"/{_OWN}/", "/torch/", "/vllm/"):
        if name in file:
            return name[1:] + file.rpartition(name)[2]
    return file
