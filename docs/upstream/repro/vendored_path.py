# SPDX-License-Identifier: Apache-2.0
"""What Inductor imports for a C++ kernel: does it leave a folder of setuptools in sys.path?"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from pathlib import Path

from bounded import CannotTell, report


def check() -> tuple[bool, str]:
    import torch  # noqa: F401

    before = list(sys.path)
    # As torch/_inductor/cpp_builder.py does; the compile itself would take a minute and change nothing.
    importlib.import_module("torch.utils.cpp_extension")
    added = [os.path.join(*Path(one).parts[-2:]) for one in sys.path if one not in before]
    version = importlib.metadata.version("setuptools")
    if not added and "setuptools" in sys.modules:
        raise CannotTell(f"setuptools {version} leaves nothing in sys.path, whoever imports it")
    found = ", ".join(added) or "nothing"
    return bool(added), f"a C++ kernel's imports, with setuptools {version}, have put into sys.path: {found}"


if __name__ == "__main__":
    report(check)
