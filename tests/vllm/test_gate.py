# SPDX-License-Identifier: Apache-2.0
"""Several lifecycles in one process, and workers that do not come to be. torch's own methods, keepers that only answer."""

from __future__ import annotations

import gc
import os
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from pytest_compilepool.torch_compat import gate as gate_module
from pytest_compilepool.torch_compat.gate import Gate
from pytest_compilepool.torch_compat.probe import inductor
from pytest_compilepool.vllm import ahead, plugin
from pytest_compilepool.vllm.settings import Settings

NAMES = ("wakeup", "use_process_pool", "triton")


class Keeper:
    def __init__(self, name: str, asked: list[str]) -> None:
        self.name, self.asked, self.over = name, asked, False

    def is_over(self) -> bool:
        return self.over

    def coming(self) -> bool:
        self.asked.append(self.name)
        return True

    def is_open(self) -> bool:
        return False


@pytest.fixture
def torch_methods():
    owner = inductor("async_compile").AsyncCompile
    before = {name: owner.__dict__[name] for name in NAMES}
    yield lambda: {name: owner.__dict__[name] for name in NAMES} == before
    assert {name: owner.__dict__[name] for name in NAMES} == before


def wake() -> None:
    inductor("async_compile").AsyncCompile.wakeup()


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_of_two_keepers_the_newest_that_is_not_over_is_asked(torch_methods, first_ends_first):
    asked: list[str] = []
    one, other = Keeper("one", asked), Keeper("other", asked)
    gates = [Gate(one), Gate(other)]
    for gate in gates:
        gate.install()
    wake()
    other.over = True
    wake()
    other.over = False
    wake()
    assert asked == ["other", "one", "other"]
    assert not torch_methods()
    for gate in gates if first_ends_first else reversed(gates):
        assert not torch_methods()
        gate.remove()
        gate.remove()
    assert torch_methods()


def test_a_keeper_that_is_removed_first_is_not_asked_again(torch_methods):
    asked: list[str] = []
    gates = [Gate(Keeper(name, asked)) for name in ("one", "other")]
    for gate in gates:
        gate.install()
    gates[0].remove()
    wake()
    gates[1].remove()
    assert asked == ["other"]


def test_a_keeper_that_is_over_leaves_torch_alone(torch_methods):
    keeper = Keeper("one", [])
    keeper.over = True
    gate = Gate(keeper)
    gate.install()
    try:
        assert gate_module._asked() is None
    finally:
        gate.remove()


class Wrapper:
    """As vLLM's: what it does not have it looks for in its worker, and before there is one in that again."""

    def __getattr__(self, name):
        return getattr(self.worker, name)


def ended():
    calls: list[str] = []
    return SimpleNamespace(end=lambda: calls.append("end"), calls=calls)


@pytest.mark.parametrize("attribute", ["_HELD", "_RUNNING"])
def test_a_worker_that_cannot_be_made_says_why_and_its_pool_is_ended(attribute):
    wrapper, lifecycle = Wrapper(), ended()
    value = (lifecycle,) if attribute == "_HELD" else lifecycle
    vars(wrapper)[getattr(plugin, attribute)] = value

    def make():
        raise ImportError("no such worker")

    with pytest.raises(ImportError, match="no such worker"):
        plugin._or_ended(wrapper, make)
    assert lifecycle.calls == ["end"]


class Worker:
    def __init__(self, **methods):
        self.__dict__.update(methods)


def lifecycle_of(calls):
    names = ("loaded", "warmed_up", "before_capture", "after_capture", "attached", "end")
    return SimpleNamespace(**{name: lambda *a, name=name, **k: calls.append(name) for name in names})


def test_a_worker_that_is_dropped_without_a_shutdown_takes_its_pool_with_it():
    calls: list[str] = []
    worker = Worker(load_model=lambda: None, model_runner=SimpleNamespace())
    assert plugin._attach(worker, lifecycle_of(calls), "0.24.0")
    worker.load_model()
    assert calls == ["attached", "loaded"]
    del worker
    gc.collect()
    assert calls == ["attached", "loaded", "end"]


def test_a_hook_whose_method_raises_ends_the_pool():
    calls: list[str] = []

    def load_model():
        raise MemoryError("the model is too large")

    worker = Worker(load_model=load_model, model_runner=SimpleNamespace())
    plugin._attach(worker, lifecycle_of(calls), "0.24.0")
    with pytest.raises(MemoryError, match="too large"):
        worker.load_model()
    assert calls == ["attached", "end"]


class Ahead:
    def __init__(self, settings):
        self.pool, self.settings, self.ended = SimpleNamespace(processes=2), settings, 0

    def is_for(self, settings):
        return settings == self.settings

    def end(self):
        self.ended += 1


@pytest.mark.parametrize(
    ("processes", "settings", "fork", "taken"),
    [
        (2, Settings("2"), False, True),
        (3, Settings("3"), False, False),
        (2, Settings("2", job_timeout=1.0), False, False),
        (2, Settings("2"), True, False),
    ],
)
def test_who_was_started_ahead_is_taken_over_by_who_wants_it(monkeypatch, processes, settings, fork, taken):
    waiting = Ahead(Settings("2"))
    monkeypatch.setattr(ahead, "_waiting", [waiting])
    monkeypatch.setattr(ahead, "_maker", os.getppid() if fork else os.getpid())
    assert (ahead.take(processes, settings) is waiting) == taken
    assert ahead.waiting() is None
    # A fork does not end what its parent has started.
    assert waiting.ended == (0 if taken or fork else 1)
