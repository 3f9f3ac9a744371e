# SPDX-License-Identifier: Apache-2.0
"""A variable that is set after the pool was made: does a job see it?"""

from __future__ import annotations

import os

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    os.environ["TRITON_PTXAS_PATH"] = "/opt/cuda/bin/ptxas"
    found = pool.submit(os.getenv, "TRITON_PTXAS_PATH").result(READY)
    late = found != os.environ["TRITON_PTXAS_PATH"]
    return late, f"TRITON_PTXAS_PATH was set after the pool was made; a job sees {found!r}"


if __name__ == "__main__":
    report(check)
