# SPDX-License-Identifier: Apache-2.0
"""Which configurations have started from artifacts before: those compile nothing, and want no sidecar early.

Whether it will load an artifact, vLLM knows only when the model is traced: seconds too late to start a sidecar for
the case that it does not. So a start leaves a note beside the artifacts that it has saved or loaded.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_FOLDER = "compilepool"
_ARTIFACTS = "torch_compile_cache"


def any_artifacts(root: Path) -> bool:
    """Whether there is an artifact of any configuration. root: VLLM_CACHE_ROOT."""
    return any((root / _ARTIFACTS).glob("*/*"))


class Remembered:
    """The note of one configuration.

    root: VLLM_CACHE_ROOT; identity: what its artifacts depend on, as text; where that is empty, nothing is remembered.
    """

    def __init__(self, root: Path, identity: str) -> None:
        self._root = root
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._note = root / _FOLDER / name if identity else None

    def has_artifacts(self) -> bool:
        """Whether this configuration has saved or loaded artifacts, and they were not all removed since."""
        return self._note is not None and self._note.is_file() and any_artifacts(self._root)

    def remember(self) -> None:
        """It has. Where that cannot be written down, the next start begins its sidecar in vain, no more."""
        if self._note is None:
            return
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.touch()
        except OSError:
            pass

    def forget(self) -> None:
        """It has not: kernels were compiled, and nothing was saved."""
        if self._note is None:
            return
        try:
            os.unlink(self._note)
        except OSError:
            pass


def identity_of(config: Any, torch: str) -> str:
    """What tells a configuration from others: vLLM's own hash of it, and torch's version; empty where it has none.

    config: a `VllmConfig`.
    """
    try:
        return f"{config.compute_hash()} {torch}"
    except Exception:  # a config of another kind, or half made: then nothing is remembered
        return ""
