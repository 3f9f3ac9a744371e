# SPDX-License-Identifier: Apache-2.0
"""A job whose sidecar is killed: does whoever waits for it hear of that?"""

from __future__ import annotations

import operator
import time
from concurrent.futures import TimeoutError as NoAnswer

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    future = pool.submit(time.sleep, 60)
    pool.process.kill()
    pool.process.wait()
    try:
        future.result(4)
    except NoAnswer:
        return True, "a job of a killed sidecar still waits after 4 s"
    except Exception as error:
        return False, f"a job of a killed sidecar fails: {error}"
    raise AssertionError("the job cannot have been done")


if __name__ == "__main__":
    report(check)
