# SPDX-License-Identifier: Apache-2.0
"""shutdown() of a pool whose worker ignores SIGTERM: how long does it take?"""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from bounded import READY, CannotTell, alive, report, until


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    pool.submit(signal.signal, signal.SIGTERM, signal.SIG_IGN).result(READY)
    # A worker that has not taken it up yet would end by itself.
    pool.submit(subprocess.call, ["sh", "-c", ": > begun; exec sleep 60"])
    if not until(lambda: os.path.exists("begun"), READY):
        raise CannotTell("the worker did not take up its job")
    ending = threading.Thread(target=pool.shutdown, daemon=True)
    ending.start()
    # Where it is followed by SIGKILL, that is after ten seconds.
    ending.join(14)
    waits = ending.is_alive() and alive(worker)
    return (
        waits,
        f"14 s after shutdown() its worker, which ignores SIGTERM, is {'alive' if waits else 'gone'}",
    )


if __name__ == "__main__":
    report(check)
