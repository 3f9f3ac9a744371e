# SPDX-License-Identifier: Apache-2.0
"""A C++ compiler that keeps what it has made: what is asked for with the same source and the same flags is copied.

Run as a program: FOLDER COMPILER ARGUMENTS... Starts of vLLM on a CPU machine compile the same kernels over and over, in
caches of their own; the pool has no part in it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys


def main(folder: str, compiler: str, arguments: list[str]) -> None:
    """Compile, or copy. Does not return."""
    where = arguments.index("-o") + 1 if "-o" in arguments else 0
    sources = [one for one in arguments if one.endswith((".cpp", ".cc"))]
    made = arguments[where] if 0 < where < len(arguments) else ""
    if len(sources) != 1 or not made:
        os.execvp(compiler, [compiler, *arguments])
    with open(sources[0], "rb") as file:
        text = file.read()
    flags = [one for one in arguments if one not in (sources[0], made)]
    key = hashlib.sha256("\0".join([compiler, *flags, ""]).encode() + text).hexdigest()
    kept = os.path.join(folder, key)
    if not os.path.exists(kept):
        status = os.spawnvp(os.P_WAIT, compiler, [compiler, *arguments])
        if status:
            sys.exit(1 if status < 0 else status)
        if not os.path.exists(made):
            sys.exit(0)
        os.makedirs(folder, exist_ok=True)
        part = f"{kept}.{os.getpid()}"
        shutil.copyfile(made, part)
        os.replace(part, kept)
    else:
        shutil.copyfile(kept, made)
        os.chmod(made, 0o755)
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
