# SPDX-License-Identifier: Apache-2.0
"""A wheel with ptxas in torch/bin: does Inductor find it?"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from bounded import report


def check() -> tuple[bool, str]:
    source = next(iter(importlib.util.find_spec("torch").submodule_search_locations))
    # Only the one file, in a torch folder of our own that has a ptxas.
    copy = Path("torch/_inductor/runtime/compile_tasks.py")
    copy.parent.mkdir(parents=True)
    shutil.copy(Path(source, "_inductor/runtime/compile_tasks.py"), copy)
    ptxas = Path("torch/bin/ptxas").absolute()
    ptxas.parent.mkdir()
    ptxas.touch(mode=0o755)
    os.environ.pop("TRITON_PTXAS_PATH", None)
    spec = importlib.util.spec_from_file_location("torch._inductor.runtime.copied_compile_tasks", copy)
    module = importlib.util.module_from_spec(spec)
    import torch  # noqa: F401  (not the folder: that is no package)

    spec.loader.exec_module(module)
    module._set_triton_ptxas_path()
    found = os.environ.get("TRITON_PTXAS_PATH")
    return found != str(
        ptxas
    ), f"torch/bin/ptxas is there, and TRITON_PTXAS_PATH is {'set to it' if found else 'not set'}"


if __name__ == "__main__":
    report(check)
