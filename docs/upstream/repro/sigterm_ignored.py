# SPDX-License-Identifier: Apache-2.0
"""shutdown() of a pool whose worker ignores SIGTERM: how long does it take?"""

from __future__ import annotations

import os
import signal

from bounded import READY, alive, occupy, report, shutdown_waits


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    pool.submit(signal.signal, signal.SIGTERM, signal.SIG_IGN).result(READY)
    occupy(pool)
    # Where it is followed by SIGKILL, that is after ten seconds.
    waits = shutdown_waits(pool, 14) and alive(worker)
    return (
        waits,
        f"14 s after shutdown() its worker, which ignores SIGTERM, is {'alive' if waits else 'gone'}",
    )


if __name__ == "__main__":
    report(check)
