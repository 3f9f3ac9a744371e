# SPDX-License-Identifier: Apache-2.0
"""Whether there is a torch at all, asked without importing it. Loading this costs next to nothing."""

from __future__ import annotations

import importlib.metadata
import sys


def installed_version(package: str = "torch") -> str | None:
    """The version of an installed distribution by its metadata, without importing it; None without one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def inductor_loaded() -> bool:
    """Whether this process has imported the module that owns the compile pool."""
    return "torch._inductor.async_compile" in sys.modules
