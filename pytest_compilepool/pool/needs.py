# SPDX-License-Identifier: Apache-2.0
"""What a sidecar keeps from the moment it was started, so that two tests can tell whether they may share one.

A sidecar is a snapshot of its parent: environment, module path and working directory stay what they
were, and every worker that it forks inherits them (seen on torch 2.8 to 2.15).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from pytest_compilepool.leaks.environ import is_lasting_by_product
from pytest_compilepool.proctree import TAG
from pytest_compilepool.torch_compat.settings import get_config

# What torch reads when it makes a pool, and what the pool's own timer goes by.
_SETTINGS = (
    "quiesce_async_compile_pool",
    "quiesce_async_compile_time",
    "torchinductor_worker_logpath",
    "worker_suppress_logging",
)

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT")

# setuptools puts its own copies of packages there when torch's C++ compiles import it: no job of a worker needs them.
_VENDORED = os.path.join("setuptools", "_vendor")

# Variables that differ between tests and mean nothing to a compile.
_VOLATILE = frozenset({TAG, "PYTEST_CURRENT_TEST", "COLUMNS", "LINES", "PWD", "OLDPWD", "SHLVL", "_"})


@dataclass(frozen=True)
class Needs:
    """What a test wants of its sidecar. Two tests whose needs are equal may share one.

    settings: those of Inductor that torch reads when it makes a pool, as text.
    """

    processes: int
    start_method: str
    environment: tuple[tuple[str, str], ...]
    path: tuple[str, ...]
    folder: str
    settings: tuple[tuple[str, str], ...] = ()
    prime: str = ""


def current_needs(processes: int, start_method: str, prime: str = "") -> Needs:
    """The needs of a test that asks now. processes: workers; start_method: as torch names it; prime: see `CompilePool`."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _VOLATILE and name not in _CACHES and not is_lasting_by_product(name, value)
    }
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""
    return Needs(
        processes,
        start_method,
        tuple(sorted(environment.items())),
        tuple(entry for entry in sys.path if not entry.endswith(_VENDORED)),
        folder,
        tuple((name, repr(get_config(name))) for name in _SETTINGS),
        prime,
    )


def cache_folders() -> dict[str, str | None]:
    """The variables that move a cache, as they are now; no need, for each job tells its worker (`JobLog`)."""
    return {name: os.environ.get(name) for name in _CACHES}


def differences(old: Needs, new: Needs) -> list[str]:
    """Why `new` cannot use the sidecar that was made for `old`, a phrase each; [] if it can."""
    found = []
    if old.processes != new.processes:
        found.append(f"{old.processes} processes, not {new.processes}")
    if old.start_method != new.start_method:
        found.append(f"start method {old.start_method}, not {new.start_method}")
    if old.prime != new.prime:
        found.append(f"primed for {old.prime or 'nothing'}, not {new.prime or 'nothing'}")
    before, after = dict(old.environment), dict(new.environment)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        found.append("environment changed: " + ", ".join(changed))
    if old.path != new.path:
        moved = [f"+{entry}" for entry in new.path if entry not in old.path]
        moved += [f"-{entry}" for entry in old.path if entry not in new.path]
        found.append(f"sys.path changed: {', '.join(moved) or 'its order'}")
    if old.folder != new.folder:
        found.append("working directory changed")
    settings = [now[0] for then, now in zip(old.settings, new.settings, strict=True) if then != now]
    if settings:
        found.append("settings of Inductor changed: " + ", ".join(settings))
    return found
