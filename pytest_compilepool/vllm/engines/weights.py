# SPDX-License-Identifier: Apache-2.0
"""Models with weights, made in an interpreter of their own: whoever asks for one need not have imported torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pytest_compilepool.vllm.engines.defaults import has_weights
from pytest_compilepool.vllm.engines.order import EngineFailed

_MAKE = (
    "import json, sys; from pathlib import Path; sys.path[:] = json.loads(sys.argv[1]); "
    "from pytest_compilepool.vllm.engines import models; models.with_weights(*map(Path, sys.argv[2:]))"
)
_TAIL = 3000


class Weights:
    """folder: where they are made, each once; limit: seconds for each."""

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder, self._limit = folder, limit
        self._made: dict[Path, Path] = {}

    def of(self, model: Path) -> Path:
        """That folder where it has weights, else a copy that has. Raises EngineFailed where that cannot be made."""
        if has_weights(model):
            return model
        if model not in self._made:
            self._made[model] = self._make(model, self._folder / f"{model.name}-{len(self._made)}")
        return self._made[model]

    def _make(self, model: Path, into: Path) -> Path:
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        try:
            made = subprocess.run(
                [sys.executable, "-c", _MAKE, path, str(model), str(into)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
                timeout=self._limit,
            )
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"weights for {model} were not made within {self._limit:g} s") from None
        if made.returncode:
            said = made.stdout.decode(errors="replace")[-_TAIL:]
            raise EngineFailed(f"weights for {model} could not be made (status {made.returncode}):\n{said}")
        return into
