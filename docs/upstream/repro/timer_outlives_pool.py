# SPDX-License-Identifier: Apache-2.0
"""The thread of a pool's idle timer: does it outlive the pool?"""

from __future__ import annotations

import inspect
import operator
import threading

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    if "quiesce" not in inspect.signature(SubprocPool).parameters:
        return False, "this torch has no idle timer"
    pool = SubprocPool(1, quiesce=True)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    timer = next(one for one in threading.enumerate() if one.name == "subproc_worker_timer")
    pool.shutdown()
    timer.join(1)
    return (
        timer.is_alive(),
        f"1 s after shutdown() the timer's thread {'is alive' if timer.is_alive() else 'has ended'}",
    )


if __name__ == "__main__":
    report(check)
