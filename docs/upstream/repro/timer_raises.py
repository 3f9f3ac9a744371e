# SPDX-License-Identifier: Apache-2.0
"""The idle timer of a pool whose sidecar has died: does it raise in its thread?"""

from __future__ import annotations

import inspect
import operator
import threading

from bounded import READY, CannotTell, report


def check() -> tuple[bool, str]:
    from torch._inductor import config
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    if "quiesce" not in inspect.signature(SubprocPool).parameters:
        return False, "this torch has no idle timer"
    raised: list[str] = []
    threading.excepthook = lambda told: raised.append(f"{told.exc_type.__name__}: {told.exc_value}")
    config.quiesce_async_compile_time = 1
    pool = SubprocPool(1, quiesce=True)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    timer = next(one for one in threading.enumerate() if one.name == "subproc_worker_timer")
    pool.process.kill()
    pool.process.wait()
    timer.join(10)
    if timer.is_alive():
        raise CannotTell("the timer has not gone off")
    return bool(
        raised
    ), f"the timer of a pool whose sidecar was killed raises: {raised[0] if raised else 'nothing'}"


if __name__ == "__main__":
    report(check)
