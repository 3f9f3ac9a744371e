# SPDX-License-Identifier: Apache-2.0
"""What a cell tells of torch's settings, asked in a fresh interpreter: in this one a test may have changed some."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json
from pytest_compilepool.torch_compat import facts
import torch._inductor.config as config
print(json.dumps([facts.defaults(), config.force_disable_caches, getattr(config, "quiesce_async_compile_pool", None)]))
"""


@pytest.fixture(scope="module")
def told():
    pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(run.stdout)


def test_a_setting_that_lives_elsewhere_is_told_like_any_other(told):
    """From torch 2.9 on `force_disable_caches` is torch.compiler.config's; what is seen of it here has not changed."""
    defaults, disabled, _ = told
    assert defaults["force_disable_caches"] is disabled


def test_settings_of_the_pool_are_told_and_those_of_the_machine_are_not(told):
    defaults, _, quiesce = told
    assert defaults.get("quiesce_async_compile_pool") is quiesce
    assert "compile_threads" not in defaults
    assert not [value for value in defaults.values() if isinstance(value, str) and "/" in value]
