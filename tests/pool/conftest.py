# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.torch_compat import capabilities

pytest.importorskip("torch", reason="these tests are about the real pool, which is torch's")
# Before the first of them: a census that begins in the middle of a test takes for a leak what its monkeypatch puts back.
capabilities()


@pytest.fixture
def needs_quiesce():
    """Skips where this torch can neither let its workers go nor fork them again (2.8)."""
    able = capabilities()
    if not (able.quiesce and able.wakeup):
        pytest.skip(f"torch {able.torch} has no quiesce() and wakeup(), which this test is about")


@pytest.fixture
def own_pool():
    """A pool that is made without the plugin's fixtures, ready; ended in any case."""
    pool = CompilePool(2)
    try:
        pool.warm()
        pool.wait_ready()
        yield pool
    finally:
        pool.shutdown(2.0)


@pytest.fixture
def blank_pool():
    """A pool object that nobody has warmed; ended in any case."""
    pool = CompilePool(2)
    yield pool
    pool.shutdown(2.0)
