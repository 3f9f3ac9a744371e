# SPDX-License-Identifier: Apache-2.0
"""An exception that pickles and cannot be loaded: is it said to be that?"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from bounded import READY, report

_ODD = """\
class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Result:
    def __reduce__(self):
        raise Odd(1, 2)
"""


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    Path("odd.py").write_text(_ODD)
    odd = importlib.import_module("odd")
    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    try:
        pool.submit(odd.Result).result(10)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    blamed = "terminated abruptly" in text or "crash" in text or "exited" in text
    return (
        blamed,
        f"a result cannot be pickled, no process has died (worker {worker}), and the error is {text!r}",
    )


if __name__ == "__main__":
    report(check)
