# SPDX-License-Identifier: Apache-2.0
"""After `import vllm`: what becomes of the number of compile workers that the user has chosen?"""

from __future__ import annotations

import os

from bounded import report


def check() -> tuple[bool, str]:
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "8"
    import vllm  # noqa: F401
    from torch._inductor import config

    left = os.environ["TORCHINDUCTOR_COMPILE_THREADS"]
    lost = (left, config.compile_threads) != ("8", 8)
    return (
        lost,
        f"the user chose 8, and after `import vllm` the variable says {left} and torch {config.compile_threads}",
    )


if __name__ == "__main__":
    report(check, "vllm")
