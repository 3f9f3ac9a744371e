# SPDX-License-Identifier: Apache-2.0
"""Imported by vLLM in each worker's process, as its `worker_extension_cls`: prepares it as the child's own is prepared."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pytest_compilepool.vllm.engines import cpu

VARIABLE = "COMPILEPOOL_ENGINE_PREPARE"
"""`Order.prepare` as JSON, in the environment of a child and of the processes that its engines start."""

_prepared = False


class Extension:
    """What is mixed into a worker's class: nothing. It is the import that counts."""


class Elsewhere:
    """What functions of `Order.prepare` are given in a process that is not the child's. See `child.Child`."""

    def __init__(self) -> None:
        self.on_cpu = cpu.is_cpu()
        self.folder = Path(os.environ["TMPDIR"])
        self.asked: list[Callable[[], None]] = []
        self.serving: list[Callable[[], None]] = []
        self.between: list[Callable[[], None]] = []


def prepare(child: Any, functions: Iterable[str]) -> None:
    """Call them, `module:function`, in this process; once."""
    global _prepared
    _prepared = True
    if child.on_cpu:
        cpu.keep_vllm_compile()
    for name in functions:
        module, _, function = name.partition(":")
        getattr(importlib.import_module(module), function)(child)


def _prepare_once() -> None:
    if not _prepared and VARIABLE in os.environ:
        prepare(Elsewhere(), json.loads(os.environ[VARIABLE]))


_prepare_once()
