# SPDX-License-Identifier: Apache-2.0
"""A user's module named utils: does a job find it, or torch's?"""

from __future__ import annotations

import importlib
from pathlib import Path

from bounded import READY, report


def check() -> tuple[bool, str]:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    Path("utils.py").write_text("def answer():\n    return 42\n")
    utils = importlib.import_module("utils")
    pool = SubprocPool(1)
    try:
        found = pool.submit(utils.answer).result(READY)
    except Exception as error:
        what, _, where = str(error).splitlines()[-1].partition(" on ")
        folder = "torch's own folder" if "compile_worker" in where else where
        return True, f"the user's utils.py has answer(), and a worker says: {what}; it looked into {folder}"
    return False, f"a function of the user's utils.py is found, and says {found}"


if __name__ == "__main__":
    report(check)
