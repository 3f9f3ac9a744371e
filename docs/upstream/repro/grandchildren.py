# SPDX-License-Identifier: Apache-2.0
"""A process that a job has started: does it outlive the pool?"""

from __future__ import annotations

import os

from bounded import READY, alive, report, until


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    pid = pool.submit(os.spawnlp, os.P_NOWAIT, "sleep", "sleep", "60").result(READY)
    pool.shutdown()
    gone = until(lambda: not alive(pid), 1)
    return (
        not gone,
        f"the process that a job had started is {'gone' if gone else 'there'} 1 s after shutdown()",
    )


if __name__ == "__main__":
    report(check)
