# SPDX-License-Identifier: Apache-2.0
"""A job that a closed pool refuses: does the pool keep it?"""

from __future__ import annotations

import operator

from bounded import report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    pool.shutdown()
    try:
        pool.submit(operator.add, 1, 1)
    except RuntimeError as error:
        refusal = str(error)
    # By the name that it has since 2.15, or by that of before.
    kept = len(pool.pending_jobs if hasattr(pool, "pending_jobs") else pool.pending_futures)
    return (
        kept > 0,
        f"submit() says {refusal!r}, and the closed pool keeps {kept} job that nobody will answer",
    )


if __name__ == "__main__":
    report(check)
