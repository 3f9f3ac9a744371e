# SPDX-License-Identifier: Apache-2.0
"""A sidecar that is killed: when do its workers end?"""

from __future__ import annotations

import os

from bounded import READY, alive, occupy, report, until


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    occupy(pool)
    pool.process.kill()
    pool.process.wait()
    gone = until(lambda: not alive(worker), 4)
    return not gone, f"4 s after its sidecar was killed a busy worker {'has ended' if gone else 'lives on'}"


if __name__ == "__main__":
    report(check)
