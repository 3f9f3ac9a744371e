# SPDX-License-Identifier: Apache-2.0
"""Whether there is a torch at all, asked without importing it. Loading this costs next to nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys

POOL_MODULES: tuple[str, ...] = ("torch._inductor.async_compile",)
"""What has a pool made, and where there is no GPU what a program compiles with. Beside one, importing that may have asked
the driver, which then nothing that is forked can use."""
if not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd", "/dev/dri"))):
    POOL_MODULES += ("torch._inductor.compile_fx",)


def torch_available() -> bool:
    """Whether a torch can be found; it may still fail to be imported."""
    return "torch" in sys.modules or importlib.util.find_spec("torch") is not None


def installed_version(package: str = "torch") -> str | None:
    """The version of an installed distribution, without importing it; None without one."""
    if package == "torch":
        version = _torch_version()
        if version is not None:
            return version
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_version() -> str | None:
    """From torch/version.py: its metadata hold its whole README, which takes milliseconds to parse."""
    spec = importlib.util.find_spec("torch") if "torch" not in sys.modules else sys.modules["torch"].__spec__
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
                found = re.search(r"""^__version__ = ['"](.+?)['"]""", file.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found[1]
    return None


def inductor_loaded() -> bool:
    """Whether this process has imported the module that owns the compile pool."""
    return "torch._inductor.async_compile" in sys.modules
