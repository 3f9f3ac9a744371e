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
from pytest_compilepool.torch_compat import cache_roots

# Variables that differ between tests and mean nothing to a compile.
_VOLATILE = frozenset({TAG, "PYTEST_CURRENT_TEST", "COLUMNS", "LINES", "PWD", "OLDPWD", "SHLVL", "_"})


@dataclass(frozen=True)
class Needs:
    """What a test wants of its sidecar. Two tests whose needs are equal may share one."""

    processes: int
    start_method: str
    environment: tuple[tuple[str, str], ...]
    path: tuple[str, ...]
    folder: str


def current_needs(processes: int, start_method: str) -> Needs:
    """The needs of a test that asks now. processes: workers; start_method: as torch names it."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _VOLATILE and not is_lasting_by_product(name, value)
    }
    # torch writes its default folder into the environment when it is first asked for it, and Triton's
    # below that: whether or not it has done so yet makes no difference to a sidecar.
    roots = cache_roots()
    environment["TORCHINDUCTOR_CACHE_DIR"] = roots["TORCHINDUCTOR_CACHE_DIR"]
    if environment.get("TRITON_CACHE_DIR", "").startswith(roots["TORCHINDUCTOR_CACHE_DIR"]):
        del environment["TRITON_CACHE_DIR"]
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""
    return Needs(processes, start_method, tuple(sorted(environment.items())), tuple(sys.path), folder)


def differences(old: Needs, new: Needs) -> list[str]:
    """Why `new` cannot use the sidecar that was made for `old`, a phrase each; [] if it can."""
    found = []
    if old.processes != new.processes:
        found.append(f"{old.processes} processes, not {new.processes}")
    if old.start_method != new.start_method:
        found.append(f"start method {old.start_method}, not {new.start_method}")
    before, after = dict(old.environment), dict(new.environment)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        found.append("environment changed: " + ", ".join(changed))
    if old.path != new.path:
        found.append("sys.path changed")
    if old.folder != new.folder:
        found.append("working directory changed")
    return found
