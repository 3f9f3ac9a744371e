# SPDX-License-Identifier: Apache-2.0
"""A job that names no cache folder: does its worker keep the folder of the job before?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bounded import READY, report

_MEET = """\
import os, time

open(f"first-{os.getpid()}", "w").close()
end = time.monotonic() + 20
while len([name for name in os.listdir(".") if name.startswith("first-")]) < 2 and time.monotonic() < end:
    time.sleep(0.01)
"""
_TELL = """
import os

with open("seen", "w") as file:
    file.write(str(os.environ.get("TRITON_CACHE_DIR")))
"""


def check() -> tuple[bool, str]:
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile

    config.compile_threads = 2
    AsyncCompile.process_pool()
    AsyncCompile.wait_pool_ready(READY)
    # No kernels, but texts that a worker runs when it loads them; each is an error, after it was run.
    os.environ["TRITON_CACHE_DIR"] = old = os.path.abspath("old")
    for future in [AsyncCompile().triton(f"meet{one}", f"{_MEET}# {one}\n") for one in range(2)]:
        _ended(future)
    del os.environ["TRITON_CACHE_DIR"]
    _ended(AsyncCompile().triton("tell", _TELL))
    seen = Path("seen").read_text()
    return seen == old, (
        "TRITON_CACHE_DIR is no longer set, and a worker still has "
        f"{'the folder of the job before' if seen == old else seen}"
    )


def _ended(future: Any) -> None:
    try:
        future.result()
    except Exception:
        pass


if __name__ == "__main__":
    report(check)
