# SPDX-License-Identifier: Apache-2.0
"""What a small engine is given where nobody says otherwise: it starts in seconds, and what compiles is the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_compilepool.pool import policy

_CPU = {"dtype": "float32", "max_model_len": 128, "max_num_batched_tokens": 128, "max_num_seqs": 4}
_GPU = {
    "max_model_len": 512,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 64,
    "gpu_memory_utilization": 0.4,
}


def has_weights(model: Path) -> bool:
    """Whether there are weights in the folder of a model."""
    return any(model.glob("*.safetensors"))


def arguments(model: str, on_cpu: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `vllm.LLM`. model: its folder; on_cpu: whether this vLLM computes there; given: they win."""
    own = dict(given)
    compilation = own.pop("compilation_config", {})
    if isinstance(compilation, Mapping):  # else a mode, or vLLM's own object: whoever gives it means it
        compilation = {"mode": 3, **compilation}
    return {
        "model": model,
        "load_format": "auto" if has_weights(Path(model)) else "dummy",
        "skip_tokenizer_init": True,
        "compilation_config": compilation,
        **(_CPU if on_cpu else _GPU),
        **own,
    }


def processes(asked: object, origin: str) -> str:
    """The value of VLLM_COMPILE_PROCESSES: `auto` or a number; an empty text, which leaves it unset, for 1 and for "".

    Raises ValueError with a sentence. origin: who asked.
    """
    if asked in ("", "auto"):
        return str(asked)
    try:
        number = policy.parse_processes(asked, origin)  # type: ignore[arg-type]  # it says so itself
    except policy.BadProcesses:
        raise ValueError(
            f"{origin}: {asked!r} is not a number of compile processes; allowed is auto, a whole number from 1 to "
            f"{policy.MAX_PROCESSES}, or an empty text for none"
        ) from None
    return "" if number == 1 else str(number)
