# SPDX-License-Identifier: Apache-2.0
"""TORCHINDUCTOR_COMPILE_THREADS=many: does the error name the variable?"""

from __future__ import annotations

import os

from bounded import report


def check() -> tuple[bool, str]:
    from torch._inductor import config

    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "many"
    try:
        config.decide_compile_threads()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return "TORCHINDUCTOR_COMPILE_THREADS" not in text, f"the error is {text!r}"


if __name__ == "__main__":
    report(check)
