# SPDX-License-Identifier: Apache-2.0
"""A callback of a job that submits the next: does it come back?"""

from __future__ import annotations

import operator
import threading
import time

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    back = threading.Event()

    def next_job(_: object) -> None:
        pool.submit(operator.add, 1, 2)
        back.set()

    pool.submit(time.sleep, 0.2).add_done_callback(next_job)
    if back.wait(4):
        return False, "a callback can submit a job"
    return True, "a callback that submits a job has not come back after 4 s, and holds the pool's lock"


if __name__ == "__main__":
    report(check)
