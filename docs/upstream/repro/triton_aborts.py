# SPDX-License-Identifier: Apache-2.0
"""Triton, asked to compile for a compute capability that LLVM does not know: an exception?"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from bounded import report

_KERNEL = """\
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def kernel(pointer):
    tl.store(pointer, tl.sum(tl.load(pointer + tl.arange(0, 1024)), 0))


triton.compile(ASTSource(kernel, {"pointer": "*fp32"}, {}), target=GPUTarget("cuda", 73, 32))
"""


def check() -> tuple[bool, str]:
    Path("kernel.py").write_text(_KERNEL)
    ended = subprocess.run(
        [sys.executable, "kernel.py"], capture_output=True, text=True, timeout=60, check=False
    )
    if ended.returncode >= 0:
        return False, f"compiling for sm_73 is refused: {(ended.stderr.splitlines() or ['it is not'])[-1]}"
    return True, f"compiling for sm_73 ends the process with {signal.Signals(-ended.returncode).name}"


if __name__ == "__main__":
    report(check, "triton")
