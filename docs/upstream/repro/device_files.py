# SPDX-License-Identifier: Apache-2.0
"""A worker of a pool on a machine with a GPU: has it the device open?"""

from __future__ import annotations

import os
from pathlib import Path

from bounded import READY, CannotTell, report


def check() -> tuple[bool, str]:
    import torch
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    if not torch.cuda.is_available():
        raise CannotTell("there is no GPU here")
    pool = SubprocPool(1)
    worker = pool.submit(os.getpid).result(READY)
    targets = (os.path.realpath(entry) for entry in Path(f"/proc/{worker}/fd").iterdir())
    held = sorted({one for one in targets if one.startswith(("/dev/nvidia", "/dev/kfd"))})
    return bool(
        held
    ), f"a worker that has compiled nothing has open: {', '.join(held) or 'no file of a device'}"


if __name__ == "__main__":
    report(check)
