# SPDX-License-Identifier: Apache-2.0
"""A worker that dies: what is told to the job of another worker?"""

from __future__ import annotations

import operator
import os
import time

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(2)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    innocent = pool.submit(time.sleep, 1)
    guilty = pool.submit(os._exit, 1)
    assert guilty.exception(READY)
    error = innocent.exception(READY)
    return (
        error is not None,
        f"a job beside one whose worker died {'fails: ' + str(error) if error else 'is done'}",
    )


if __name__ == "__main__":
    report(check)
