# SPDX-License-Identifier: Apache-2.0
"""The sidecar, at the moment when it forks a worker: how many threads has it?"""

from __future__ import annotations

import operator
from pathlib import Path

from bounded import READY, report

_COUNT = """\
import os, sys

if "compile_worker" in " ".join(sys.orig_argv):
    def count():
        if not os.path.exists("threads"):
            with open("threads", "w") as file:
                file.write(str(len(os.listdir("/proc/self/task"))))

    os.register_at_fork(before=count)
"""


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    Path("sitecustomize.py").write_text(_COUNT)
    pool = SubprocPool(1)
    assert pool.submit(operator.add, 1, 1).result(READY) == 2
    threads = int(Path("threads").read_text())
    return threads > 1, f"the sidecar had {threads} threads when it forked its worker"


if __name__ == "__main__":
    report(check)
