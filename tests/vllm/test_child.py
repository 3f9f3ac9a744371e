# SPDX-License-Identifier: Apache-2.0
"""One engine in the interpreter that was started for it: what is written down while it lives, and how it is shut down."""

from __future__ import annotations

import mmap
import os
from types import SimpleNamespace

import pytest

from pytest_compilepool.vllm.engines import shared
from pytest_compilepool.vllm.engines.child import Child
from pytest_compilepool.vllm.engines.order import LOG, SHUTDOWN_SECONDS, Order

NAME = f"compilepool-test-{os.getpid()}"


class Patient:
    """An engine's core that takes a limit."""

    def __init__(self) -> None:
        self.limits: list[float | None] = []

    def shutdown(self, timeout: float | None = None) -> None:
        self.limits.append(timeout)


class Old(Patient):
    """One that takes none."""

    def shutdown(self) -> None:  # type: ignore[override]
        self.limits.append(None)


@pytest.fixture
def lived(tmp_path, monkeypatch):
    """Have an engine with that core live and be shut down. Returns what is told of it."""

    def live(core, made=lambda: None):
        (tmp_path / LOG).touch()
        child = Child(Order("model", tokens=0), tmp_path, lambda: None)
        config = SimpleNamespace(cache_config=SimpleNamespace(num_gpu_blocks=7))

        def llm(**_):
            made()
            return SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config, engine_core=core))

        child._llm = llm
        monkeypatch.setattr(child, "_arguments", dict)
        child._one()
        return child.run.engine

    return live


@pytest.mark.parametrize(("core", "limit"), [(Patient(), SHUTDOWN_SECONDS), (Old(), None)])
def test_its_processes_end_in_their_own_time(lived, core, limit):
    """vLLM's own is 5 s, and a rank that is killed leaves shared memory."""
    assert lived(core).blocks == 7
    assert core.limits == [limit]


@pytest.mark.skipif(not shared.MEMORY.is_dir(), reason="no /dev/shm here")
def test_its_shared_memory_is_written_down(lived, tmp_path):
    place = shared.MEMORY / NAME
    kept = []

    def made():
        with open(place, "w+b") as file:
            file.truncate(4096)
            kept.append(mmap.mmap(file.fileno(), 4096))

    try:
        lived(Patient(), made)
        assert shared.left(tmp_path) == []  # this process uses it
        kept.pop().close()
        assert shared.left(tmp_path) == [NAME]
    finally:
        place.unlink(missing_ok=True)
