# SPDX-License-Identifier: Apache-2.0
"""quiesce() with a job at work, then another job: how many workers has a pool of one?"""

from __future__ import annotations

import os

from bounded import READY, children, occupy, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    if not hasattr(SubprocPool, "quiesce"):
        return False, "this torch cannot quiesce"
    pool = SubprocPool(1)
    pool.submit(os.getpid).result(READY)
    long = occupy(pool, 8)
    pool.quiesce()
    pool.submit(os.getpid).result(READY)
    workers = children(pool.process.pid)
    if long.done():
        return False, "the job after quiesce() waits for the job before it"
    return len(workers) > 1, f"a pool of 1 has {len(workers)} workers while a job from before quiesce() runs"


if __name__ == "__main__":
    report(check)
