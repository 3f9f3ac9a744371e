# SPDX-License-Identifier: Apache-2.0
"""Workers that were woken and had no job: are they sent home when idle?"""

from __future__ import annotations

import inspect

from bounded import READY, CannotTell, children, report, until


def check() -> tuple[bool, str]:
    from torch._inductor import config
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    if "quiesce" not in inspect.signature(SubprocPool).parameters:
        return False, "this torch has no idle timer"
    config.quiesce_async_compile_time = 1
    pool = SubprocPool(1, quiesce=True)
    pool.wakeup()
    if not until(lambda: children(pool.process.pid), READY):
        raise CannotTell("wakeup() has started no worker")
    gone = until(lambda: not children(pool.process.pid), 4)
    return (
        not gone,
        f"4 s after wakeup() the worker of a pool that rests after 1 s is {'gone' if gone else 'there'}",
    )


if __name__ == "__main__":
    report(check)
