# SPDX-License-Identifier: Apache-2.0
"""The error of a job whose sidecar was killed: does it say which process died, and of what?"""

from __future__ import annotations

import operator
import time
from concurrent.futures import TimeoutError as NoAnswer

from bounded import READY, CannotTell, report


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
        raise CannotTell("the job waits for ever, so there is no error to read") from None
    except Exception as error:
        text = str(error)
    named = str(pool.process.pid) in text and any(word in text for word in ("-9", "SIGKILL", "signal 9"))
    return not named, f"the error of a job whose sidecar got SIGKILL is {text!r}"


if __name__ == "__main__":
    report(check)
