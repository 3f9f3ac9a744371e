# SPDX-License-Identifier: Apache-2.0
"""What a cell tells of the torch in this process: its commit, its GPU, and the settings that a release may flip."""

from __future__ import annotations

import importlib
from typing import Any

_CONFIGS = {"": "torch._inductor.config", "functorch.": "torch._functorch.config"}
_ABOUT = ("worker", "quiesce", "cache", "subproc", "bundle", "compile_pool", "parallel", "autotune_in")
"""Words in the names of settings that decide where something is compiled, and what is kept of it."""

_OF_THE_MACHINE = ("compile_threads",)


def build() -> dict[str, Any]:
    """torch_git and cuda (that it was built for); gpu, gpus and driver where there is one. Imports torch."""
    torch = importlib.import_module("torch")
    found: dict[str, Any] = {
        "torch_git": str(getattr(torch.version, "git_version", None) or ""),
        "cuda": str(torch.version.cuda or torch.version.hip or ""),
    }
    if torch.cuda.is_available():
        found["gpus"] = torch.cuda.device_count()
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def defaults() -> dict[str, Any]:
    """Plain values of settings by name, as they are in a process in which nobody has set any. Imports torch."""
    found: dict[str, Any] = {}
    for prefix, module in _CONFIGS.items():
        for name, value in _values(importlib.import_module(module)).items():
            if any(word in name for word in _ABOUT) and name not in _OF_THE_MACHINE and _is_plain(value):
                found[prefix + name] = value
    return found


def _values(config: Any) -> dict[str, Any]:
    copy = getattr(config, "get_config_copy", None) or getattr(config, "shallow_copy_dict", None)
    found = {} if copy is None else dict(copy())
    # Of a setting that lives elsewhere by now (torch 2.9: force_disable_caches) the copy has nothing.
    for name, entry in getattr(config, "_config", {}).items():
        if getattr(entry, "alias", None):
            found[name] = getattr(config, name)
    return found


def _is_plain(value: Any) -> bool:
    """No folder of this machine either."""
    return (
        value is None
        or isinstance(value, (bool, int, float))
        or (isinstance(value, str) and "/" not in value)
    )
