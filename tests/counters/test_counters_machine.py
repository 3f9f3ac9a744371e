# SPDX-License-Identifier: Apache-2.0
"""What a baseline is kept under: base versions, and the class of device, for which CUDA need not be initialised."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from pytest_compilepool.counters import machine
from pytest_compilepool.counters.machine import Machine, base_version, device_class

# A torch that sees one GPU, as a fresh interpreter would import it.
STAND_IN = """
from types import SimpleNamespace
version = SimpleNamespace(hip={hip!r})
cuda = SimpleNamespace(
    get_device_properties=lambda index: SimpleNamespace(gcnArchName={name!r}),
    get_device_capability=lambda index: {capability!r},
)
"""


def stand_in(monkeypatch, available: bool, initialised: bool, hip: str | None = None) -> None:
    """Puts a torch with a GPU in the place of this process's own."""
    torch = types.ModuleType("torch")
    torch.__spec__ = sys.modules["torch"].__spec__ if "torch" in sys.modules else None
    torch.version = types.SimpleNamespace(hip=hip)
    torch.cuda = types.SimpleNamespace(
        is_available=lambda: available,
        is_initialized=lambda: initialised,
        get_device_capability=lambda index: (9, 4) if hip else (9, 0),
        get_device_properties=lambda index: types.SimpleNamespace(
            gcnArchName="gfx942:sramecc+:xnack-" if hip else "not to be used"
        ),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.mark.parametrize(
    ("version", "base"),
    [
        ("2.13.0+cpu", "2.13.0"),
        ("2.16.0.dev20261101+cu130", "2.16.0"),
        ("2.16.0a0+gitabc", "2.16.0"),
        ("none", "none"),
        ("a fork of mine", "a fork of mine"),
    ],
)
def test_base_versions(version, base):
    assert base_version(version) == base


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (("", 9, 0), "sm90"),
        (("", 12, 0), "sm120"),
        (("gfx942:sramecc+:xnack-", 9, 4), "gfx942"),
        (("gfx1100", 11, 0), "gfx1100"),
    ],
)
def test_classes_of_device(gpu, name):
    assert device_class(*gpu) == name


def test_the_key_of_this_machine():
    import torch

    key = Machine().key()
    assert key.startswith(f"torch {torch.__version__.partition('+')[0]}, vllm ")
    if not torch.cuda.is_available():
        assert key.endswith(", cpu")


@pytest.mark.parametrize(("hip", "name"), [(None, "sm90"), ("6.4", "gfx942")])
def test_a_gpu_that_is_in_use_is_asked(monkeypatch, hip, name):
    stand_in(monkeypatch, available=True, initialised=True, hip=hip)
    monkeypatch.setattr(subprocess, "run", None)
    assert Machine().device() == name


def test_no_gpu_and_no_torch(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    stand_in(monkeypatch, available=False, initialised=False)
    assert Machine().device() == "cpu"
    monkeypatch.delitem(sys.modules, "torch")
    assert Machine().device() == "cpu"


@pytest.mark.parametrize(
    ("hip", "name", "capability", "device"),
    [
        (None, "", (9, 0), "sm90"),
        ("6.4", "gfx942:sramecc+:xnack-", (9, 4), "gfx942"),
    ],
)
def test_a_gpu_that_nobody_uses_is_asked_once_and_elsewhere(
    monkeypatch, tmp_path, hip, name, capability, device
):
    (tmp_path / "torch.py").write_text(STAND_IN.format(hip=hip, name=name, capability=capability))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stand_in(monkeypatch, available=True, initialised=False, hip=hip)
    asked = Machine()
    assert asked.device() == device
    monkeypatch.setattr(subprocess, "run", None)
    assert asked.device() == device


@pytest.mark.parametrize("text", ["raise OSError('busy')", "print('torch is talkative'); cuda = None"])
def test_a_gpu_that_answers_nobody_else(monkeypatch, tmp_path, text):
    (tmp_path / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stand_in(monkeypatch, available=True, initialised=False)
    assert Machine().device() == "gpu"


def test_a_gpu_that_answers_too_late(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("import time; time.sleep(30)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine, "_ASKING", 0.3)
    stand_in(monkeypatch, available=True, initialised=False)
    assert Machine().device() == "gpu"
