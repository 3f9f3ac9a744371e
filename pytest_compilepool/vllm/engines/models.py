# SPDX-License-Identifier: Apache-2.0
"""Models that need no hub: configurations of this package, and weights written by seed."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import shutil
from pathlib import Path

_PACKAGE = "pytest_compilepool.workloads"
_SEED = 20240607


def bundled() -> dict[str, Path]:
    """Folders with a `config.json`, by name."""
    folder = Path(str(importlib.resources.files(_PACKAGE))) / "models"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def find(model: str, origin: str = "model") -> Path:
    """The folder of a model: one of this package by its name, or a folder with a `config.json`.

    Raises ValueError with a sentence. origin: what asked for it.
    """
    if model in bundled():
        return bundled()[model]
    folder = Path(model).absolute()
    with contextlib.suppress(OSError):  # a name that is too long for one, a folder that is closed
        if (folder / "config.json").is_file():
            return folder
    allowed = ", ".join(bundled())
    raise ValueError(f"{origin}: {model!r} is neither a folder with a config.json nor one of {allowed}")


def with_weights(model: Path, into: Path, seed: int = _SEED) -> Path:
    """A copy of that configuration with weights: the same for the same seed, model and transformers.

    Dummy weights of vLLM's are so small that every model says the same token for ever; these say something. Imports
    torch and transformers; takes seconds for a model of a billion parameters. Returns `into`.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(model)
    dtype = getattr(torch, json.loads((model / "config.json").read_text())["torch_dtype"])
    torch.manual_seed(seed)
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    made = made.to_empty(device="cpu")
    scale = max(0.02, config.hidden_size**-0.5)
    with torch.no_grad():
        for name, weight in sorted(made.named_parameters()):
            is_norm = weight.ndim < 2 and name.endswith("weight")
            weight.normal_(0.0, scale).add_(1.0 if is_norm else 0.0)
    made.tie_weights()
    into.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(into)
    shutil.copyfile(model / "config.json", into / "config.json")
    return into
