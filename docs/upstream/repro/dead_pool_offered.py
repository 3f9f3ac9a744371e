# SPDX-License-Identifier: Apache-2.0
"""A pool whose sidecar has died: is it offered to the next compile?"""

from __future__ import annotations

from bounded import READY, report, until


def check() -> tuple[bool, str]:
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile

    config.compile_threads = 2
    pool = AsyncCompile.process_pool()
    AsyncCompile.wait_pool_ready(READY)
    assert AsyncCompile.use_process_pool()
    pool.process.kill()
    pool.process.wait()
    # Where somebody looks after the sidecar, that is once in two seconds.
    refused = until(lambda: not AsyncCompile.use_process_pool(), 4)
    same = AsyncCompile.process_pool() is pool
    return not refused, (
        f"4 s after its sidecar was killed use_process_pool() is True, and process_pool() gives the same pool: {same}"
        if not refused
        else "a pool whose sidecar was killed is no longer offered"
    )


if __name__ == "__main__":
    report(check)
