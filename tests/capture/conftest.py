# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from pytest_compilepool.capture import CaptureGuard
from pytest_compilepool.pool.facade import CompilePool


@pytest.fixture
def graph_class():
    """A class of its own for each test that looks like a graph class and captures nothing."""

    class StandIn:
        begun = ended = 0

        def capture_begin(self, pool=None, *, error=None):
            if error is not None:
                raise error
            type(self).begun += 1
            return pool

        def capture_end(self, *, error=None):
            if error is not None:
                raise error
            type(self).ended += 1

    return StandIn


@pytest.fixture
def guard(graph_class):
    """A guard that listens to the stand-in."""
    with CaptureGuard() as made:
        made.watch(graph_class)
        yield made


@pytest.fixture
def capture(graph_class):
    """Does one capture; a function given runs inside it. Its name is what a stack is searched for."""

    def capture_of_the_test(inside=lambda: None):
        graph = graph_class()
        graph.capture_begin()
        try:
            inside()
        finally:
            graph.capture_end()

    return capture_of_the_test


@pytest.fixture(scope="module")
def shared_pool():
    """One pool for a file; each test asks for it in the state it needs."""
    pytest.importorskip("torch", reason="a compile pool is torch's")
    from pytest_compilepool.torch_compat import capabilities

    if not capabilities().quiesce:
        pytest.skip(f"torch {capabilities().torch} cannot quiesce its pool")
    with CompilePool(2) as pool:
        yield pool


@pytest.fixture
def ready_pool(shared_pool):
    """Two workers that wait for jobs."""
    shared_pool.wakeup()
    return shared_pool


@pytest.fixture
def quiesced_pool(shared_pool):
    """A sidecar without workers."""
    shared_pool.quiesce()
    return shared_pool
