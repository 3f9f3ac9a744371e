# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util

import pytest

from pytest_compilepool.counters import CounterSource
from pytest_compilepool.counters.facade import CompileCounters, SessionCounters

pytest.importorskip("torch", reason="these tests are about what torch counts, or use its fixture")


class Mine(CounterSource):
    """Counts whatever a test says."""

    name = "mine"

    def __init__(self) -> None:
        self.numbers: dict[str, object] = {"things": 5, "cache_hit": 2, "cache_miss": 3, "things_saved": 1}
        self.error: Exception | None = None

    def read(self):
        if self.error is not None:
            raise self.error
        return dict(self.numbers)

    def known(self):
        return ["never_moved"]

    def add(self, **moved: int) -> None:
        for name, number in moved.items():
            self.numbers[name] = int(self.numbers.get(name, 0)) + number


@pytest.fixture
def mine():
    return Mine()


@pytest.fixture
def counters(mine, tmp_path):
    """What the fixture hands out, with a source of its own and no pool: for what needs no session around it."""
    shared = SessionCounters(lambda: [[mine]])
    with CompileCounters(
        shared, list, file=tmp_path / "test_it.py", test="test_it.py::test_one", command="pytest it"
    ) as made:
        yield made


@pytest.fixture
def needs_triton():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton: kernels are compiled for a GPU that is not there")
