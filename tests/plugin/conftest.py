# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run pytest in a process of its own with this plugin and no other. Takes files as text, then arguments."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # The inner session has pools, markers and caches of its own: nothing of ours may lead it.
    leading = ("PYTEST_ADDOPTS", "PYTEST_XDIST", "TORCHINDUCTOR_", "TRITON_", "VLLM_", "COMPILEPOOL_")
    for name in [name for name in os.environ if name.startswith(leading)]:
        monkeypatch.delenv(name)

    def run(
        source: str,
        *arguments: str,
        conftest: str = "",
        environment: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> pytest.RunResult:
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        pytester.makepyfile(test_inner=source)
        if conftest:
            pytester.makeconftest(conftest)
        return pytester.runpytest_subprocess("-p", "compilepool", *arguments, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def pool_here() -> None:
    """Skips where the fixtures hand out no pool: without torch, and on a torch that cannot quiesce (2.8)."""
    from pytest_compilepool.torch_compat import TorchUnavailable, capabilities

    try:
        able = capabilities()
    except TorchUnavailable as error:
        pytest.skip(f"needs a real pool: {error}")
    if not able.quiesce:
        pytest.skip(f"needs a pool from the fixtures: torch {able.torch} cannot quiesce its compile pool")
