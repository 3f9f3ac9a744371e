# SPDX-License-Identifier: Apache-2.0
"""A job that raises SystemExit: is there an answer to it, and to the next job?"""

from __future__ import annotations

import operator
import sys
from concurrent.futures import TimeoutError as NoAnswer

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    pool.submit(sys.exit, 3)
    try:
        pool.submit(operator.add, 1, 2).result(4)
    except NoAnswer:
        return True, "after a job that raised SystemExit the next job has no answer within 4 s"
    return False, "after a job that raised SystemExit the next job is done"


if __name__ == "__main__":
    report(check)
