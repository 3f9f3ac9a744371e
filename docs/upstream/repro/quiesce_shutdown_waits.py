# SPDX-License-Identifier: Apache-2.0
"""quiesce() with a job at work, then shutdown(): does it wait for the job?"""

from __future__ import annotations

import os

from bounded import READY, alive, occupy, report, shutdown_waits


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    if not hasattr(SubprocPool, "quiesce"):
        return False, "this torch cannot quiesce"
    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    occupy(pool)
    pool.quiesce()
    waits = shutdown_waits(pool, 6) and alive(worker)
    return (
        waits,
        f"6 s after shutdown() was called it {'waits' if waits else 'no longer waits'} for a job of 60 s",
    )


if __name__ == "__main__":
    report(check)
