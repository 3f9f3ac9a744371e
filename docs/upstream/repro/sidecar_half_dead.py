# SPDX-License-Identifier: Apache-2.0
"""A sidecar that can fork but one of its workers: is there an answer to the first job?"""

from __future__ import annotations

import operator
from concurrent.futures import TimeoutError as NoAnswer
from pathlib import Path

from bounded import READY, CannotTell, report, until

# As under a limit of processes, of which an administrator is exempt.
_FORK_ONCE = """\
import errno, os, sys

if "compile_worker" in " ".join(sys.orig_argv):
    fork = os.fork

    def once():
        if os.path.exists("forked"):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        open("forked", "w").close()
        return fork()

    os.fork = once
"""


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    Path("sitecustomize.py").write_text(_FORK_ONCE)
    pool = SubprocPool(3)
    future = pool.submit(operator.add, 1, 1)
    if not until(lambda: Path("forked").exists() or future.done(), READY):
        raise CannotTell("the sidecar has forked no worker")
    try:
        future.result(4)
    except NoAnswer:
        lives = pool.process.poll() is None
        return (
            True,
            f"one of 3 workers can be forked, a job has no answer after 4 s; the sidecar lives on: {lives}",
        )
    except Exception as error:
        return False, f"one of 3 workers can be forked, a job fails: {error}"
    return False, "one of 3 workers can be forked, a job is done by that"


if __name__ == "__main__":
    report(check)
