# SPDX-License-Identifier: Apache-2.0
"""For all of the project's own tests."""

from __future__ import annotations

import os
import signal

import pytest
import tiers

pytest_plugins = ["pytester"]

SECONDS = 400.0
"""No test of ours takes that long; what does hangs, and is to say so rather than stop the run.

Four compiles of C++, each with headers of its own, took 180 s where four processes shared two CPUs.
"""

COMPILER = {"TORCHINDUCTOR_VEC_ISA_OK": "1"}
"""What torch need not ask the compiler: whether it can do what this CPU can. With caches that are new it would ask each
time, by compiling, which takes as long as a kernel. What CPUs can do is not what is tested here."""


def pytest_configure() -> None:
    # A shell ignores SIGINT for what it runs in the background, and an ignored signal is inherited: Ctrl-C would end
    # none of the sessions that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = _long_ones_early(items)
    # Who names a test wants it.
    if not tiers.ALL and not any("::" in argument for argument in config.args):
        tiers.leave_out(items)
    # As a marker, since the ini key `timeout` is an error for a run without pytest-timeout.
    if not config.pluginmanager.hasplugin("timeout") or config.getoption("timeout") is not None:
        return
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


def _long_ones_early(items: list[pytest.Item]) -> list[pytest.Item]:
    """The same, in whatever order they came; those marked `slow` evenly among the first half of the others.

    xdist hands out slices of the list: with several long ones in the last of them, one process would do those while
    the other has nothing left to do.
    """
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    others = [item for item in items if item.get_closest_marker("slow") is None]
    every = max(1, len(others) // (2 * len(slow) + 1)) if slow else 1
    ordered: list[pytest.Item] = []
    for number, item in enumerate(others):
        if slow and number % every == 0:
            ordered.append(slow.pop(0))
        ordered.append(item)
    return ordered + slow


@pytest.fixture
def compiler_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreters that are started from here do not ask the compiler first: see `COMPILER`."""
    for name, value in COMPILER.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run pytest in a process of its own with this plugin and no other. Takes files as text, then arguments."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # The inner session has pools, markers and caches of its own: nothing of ours may lead it.
    leading = ("PYTEST_ADDOPTS", "PYTEST_XDIST", "TORCHINDUCTOR_", "TRITON_", "VLLM_", "COMPILEPOOL_")
    for name in [name for name in os.environ if name.startswith(leading)]:
        monkeypatch.delenv(name)
    for name, value in COMPILER.items():
        monkeypatch.setenv(name, value)

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


@pytest.fixture(scope="session")
def offline_here() -> None:
    """Skips where no kernel can be compiled for a GPU that is not there: no torch, no triton, torch 2.9 and before."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch, which is not installed here")
    from pytest_compilepool.torch_compat.offline import unsupported

    why = unsupported()
    if why is not None:
        pytest.skip(f"kernels cannot be compiled for a GPU that is not there: {why}")
