# SPDX-License-Identifier: Apache-2.0
"""What torch keeps that a test can change: configuration, counters, caches, GPU memory.

Nothing here imports torch: what is not loaded has not been changed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

_CONFIGS = {
    "inductor": "torch._inductor.config",
    "dynamo": "torch._dynamo.config",
    "functorch": "torch._functorch.config",
}


def config_snapshot() -> dict[str, Any] | None:
    """Every setting of the config modules that are loaded, `inductor.compile_threads` -> value.

    None while none of them is loaded. The values are copies, so that a later change in place shows.
    """
    found: dict[str, Any] = {}
    for short, name in _CONFIGS.items():
        module = sys.modules.get(name)
        if module is not None:
            for key, value in _config_values(module).items():
                found[f"{short}.{key}"] = value
    return found or None


def config_loaded(name: str) -> bool:
    """Whether the module that a dotted setting such as `inductor.compile_threads` belongs to is loaded."""
    return _CONFIGS.get(name.partition(".")[0], "") in sys.modules


def config_restore(name: str, value: Any) -> None:
    """Put one setting back. Raises KeyError for a name that no loaded config module has."""
    short, _, key = name.partition(".")
    module = sys.modules.get(_CONFIGS.get(short, ""))
    if module is None:
        raise KeyError(name)
    target = module
    *path, last = key.split(".")
    for part in path:
        target = getattr(target, part)
    setattr(target, last, value)


def _config_values(module: Any) -> dict[str, Any]:
    copy = getattr(module, "get_config_copy", None) or getattr(module, "shallow_copy_dict", None)
    return dict(copy()) if copy is not None else {}


def get_config(name: str, otherwise: Any = None) -> Any:
    """One inductor setting by its name, or `otherwise` where it or the module is missing."""
    return getattr(sys.modules.get("torch._inductor.config"), name, otherwise)


def set_config(name: str, value: Any) -> None:
    """Set one inductor setting that exists; silently nothing where this torch does not have it."""
    config = sys.modules.get("torch._inductor.config")
    if config is not None and hasattr(config, name):
        setattr(config, name, value)


def counters_snapshot() -> dict[str, int] | None:
    """torch's counters as dotted names, `aot_autograd.autograd_cache_hit` -> number; None if not loaded."""
    utils = sys.modules.get("torch._dynamo.utils")
    if utils is None:
        return None
    return {
        f"{group}.{name}": number
        for group, counter in list(utils.counters.items())  # copies: another thread may be compiling
        for name, number in list(counter.items())
        if number
    }


def counters_restore(snapshot: Mapping[str, int]) -> None:
    """Set torch's counters to what `counters_snapshot` gave."""
    utils = sys.modules.get("torch._dynamo.utils")
    if utils is None:
        return
    utils.counters.clear()
    for name, number in snapshot.items():
        group, _, key = name.partition(".")
        utils.counters[group][key] = number


def cache_roots() -> dict[str, str]:
    """The cache folders in effect by the variable that moves them, without importing torch.

    Where a variable is unset, the default of torch, Triton or vLLM is named (none need exist).
    """
    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or os.path.join(
        tempfile.gettempdir(), f"torchinductor_{_user()}"
    )
    home = os.path.expanduser("~")
    cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    triton_home = os.environ.get("TRITON_HOME") or home
    return {
        "TORCHINDUCTOR_CACHE_DIR": inductor,
        "TRITON_CACHE_DIR": os.environ.get("TRITON_CACHE_DIR")
        or os.path.join(triton_home, ".triton", "cache"),
        "VLLM_CACHE_ROOT": os.path.expanduser(
            os.environ.get("VLLM_CACHE_ROOT") or os.path.join(cache_home, "vllm")
        ),
    }


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except Exception:  # no passwd entry and no LOGNAME: torch falls back to the uid as well
        return str(os.getuid()) if hasattr(os, "getuid") else "user"


def clear_memory_caches() -> None:
    """Forget what this process keeps of compiled code: Dynamo's, and Inductor's registered caches."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and hasattr(dynamo, "reset"):
        dynamo.reset()
    utils = sys.modules.get("torch._inductor.utils")
    if utils is not None and hasattr(utils, "clear_caches"):
        utils.clear_caches()


def gpu_memory() -> dict[int, int] | None:
    """Bytes that tensors of this process hold, by device index; None unless CUDA is initialised already."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    return {index: int(cuda.memory_allocated(index)) for index in range(cuda.device_count())}


def empty_gpu_cache() -> None:
    """Give the caching allocator's unused memory back, where CUDA is initialised."""
    if gpu_memory() is not None:
        sys.modules["torch"].cuda.empty_cache()
