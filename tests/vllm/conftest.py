# SPDX-License-Identifier: Apache-2.0
"""Starts of the stand-in's worker, each in a fresh interpreter with an outer deadline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool.torch_compat.offline import unsupported

HERE = Path(__file__).parent
ENTRY = "pytest_compilepool.vllm.plugin:register"
DEADLINE = 150.0


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Start the worker and return what was seen. `variables`: of its environment; the rest: see drive.py."""
    why = unsupported()
    if why is not None:
        pytest.skip(why)

    def started(
        variables: dict[str, str] | None = None, deadline: float = DEADLINE, **order: Any
    ) -> dict[str, Any]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "TORCHINDUCTOR_"))}
        folders = {
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
            "TRITON_CACHE_DIR": str(tmp_path / "triton"),
            "VLLM_CACHE_ROOT": str(tmp_path / "vllm"),
        }
        root = str(HERE.parents[1])
        path = os.pathsep.join([str(HERE / "stand_in"), root, *filter(None, [os.environ.get("PYTHONPATH")])])
        said = tmp_path / "said.json"
        said.unlink(missing_ok=True)
        child = subprocess.Popen(
            [sys.executable, str(HERE / "drive.py"), str(tmp_path), json.dumps({"entry": ENTRY, **order})],
            env={**kept, **folders, "PYTHONPATH": path, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, _ = child.communicate()
            pytest.fail(f"the worker was not done within {deadline:g} s:\n{output[-3000:]}")
        assert child.returncode == 0, output[-3000:]
        return json.loads(said.read_text())  # type: ignore[no-any-return]

    return started
