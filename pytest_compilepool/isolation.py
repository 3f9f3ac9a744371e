# SPDX-License-Identifier: Apache-2.0
"""What a fixture puts around a test so that its compiles do not touch the next one: caches, counters, pools."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pytest_compilepool.pool.closing import close_pool
from pytest_compilepool.torch_compat import (
    cache_roots,
    clear_memory_caches,
    counters_restore,
    counters_snapshot,
    live_pools,
    pools,
    registry,
    settings,
)

CLOSE_TIMEOUT = 5.0  # seconds for a pool that torch made beside the one that was asked for

_FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "VLLM_CACHE_ROOT": "vllm"}


@contextlib.contextmanager
def fresh_caches(folder: Path) -> Iterator[tuple[dict[str, Path], dict[str, str]]]:
    """Empty cache folders below `folder`, and nothing kept in memory; put back at the end.

    Gives the new folders by short name, and what was in effect before by variable.
    """
    outer = cache_roots()
    before = {name: os.environ.get(name) for name in _FOLDERS}
    folders = {short: folder / short for short in _FOLDERS.values()}
    for name, short in _FOLDERS.items():
        folders[short].mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folders[short])
    clear_memory_caches()
    try:
        yield folders, outer
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        clear_memory_caches()


@contextlib.contextmanager
def compile_state() -> Iterator[None]:
    """torch's counters as they were, and no pool left that torch made by the way (C++ threads, FX, autotune)."""
    counters = counters_snapshot() or {}
    before = {id(ref.object) for ref in live_pools()}
    try:
        yield
    finally:
        for ref in live_pools():
            if id(ref.object) not in before and not pools.has_owner(ref.object):
                close_pool(ref, CLOSE_TIMEOUT)
        counters_restore(counters)


@contextlib.contextmanager
def single_threaded() -> Iterator[list[str]]:
    """One compile thread and no pool. Gives a list that holds, after the block, the pools that appeared."""
    held = registry.take_out()
    before = {id(ref.object) for ref in live_pools()}
    settings.set_config("compile_threads", 1)
    appeared: list[str] = []
    try:
        yield appeared
    finally:
        for ref in live_pools():
            if id(ref.object) not in before:
                appeared.append(f"{ref.kind} (made at {ref.made_by or 'an unknown place'})")
                close_pool(ref, CLOSE_TIMEOUT)
        registry.put_back(held)
