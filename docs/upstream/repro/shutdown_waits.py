# SPDX-License-Identifier: Apache-2.0
"""shutdown() with a job at work: does it wait for the job?"""

from __future__ import annotations

import os
import threading
import time

from bounded import READY, alive, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    pool.submit(time.sleep, 60)
    ending = threading.Thread(target=pool.shutdown, daemon=True)
    ending.start()
    ending.join(6)
    waits = ending.is_alive() and alive(worker)
    return (
        waits,
        f"6 s after shutdown() was called it {'waits' if waits else 'no longer waits'} for a job of 60 s",
    )


if __name__ == "__main__":
    report(check)
