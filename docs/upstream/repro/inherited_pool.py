# SPDX-License-Identifier: Apache-2.0
"""A forked child that uses its parent's pool: whose result is the parent given?"""

from __future__ import annotations

import operator
import os
import time
from concurrent.futures import TimeoutError as NoAnswer

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    reading, writing = os.pipe()
    if os.fork() == 0:
        pool.submit(time.sleep, 1)
        os.write(writing, b"sent")
        os._exit(0)
    os.read(reading, 4)
    try:
        found = pool.submit(operator.add, 40, 2).result(6)
    except NoAnswer:
        return True, "after a job of a forked child the parent's job has no answer within 6 s"
    except Exception as error:
        return True, f"after a job of a forked child the parent's job fails: {error}"
    return found != 42, f"40 + 2 is {found} in the parent, after a forked child has sent sleep(1)"


if __name__ == "__main__":
    report(check)
