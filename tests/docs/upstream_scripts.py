# SPDX-License-Identifier: Apache-2.0
"""Run the scripts of docs/upstream/repro, several at a time, forked from one process that has imported torch.

    python tests/docs/upstream_scripts.py AT_A_TIME SCRIPT...

A line of JSON for each: its name, exit status, what it printed, seconds. The last one: the processes that they have left.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path

# prctl(2): whatever a script leaves becomes a child of this process.
_SET_CHILD_SUBREAPER = 36

_WANTED = ("torch._inductor.async_compile", "torch._inductor.compile_worker.subproc_pool", "triton")


def run(script, printed):
    """In a fork: the script as it runs by itself."""
    with open(printed, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [script]
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(ended.code)
    os._exit(99)


def main(at_a_time, scripts):
    """See above."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        # torch makes up its mind about some folders when it is imported.
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        _preload()
        left = _run_all(at_a_time, list(scripts), folder)
    print(json.dumps({"left": left}), flush=True)


def _preload():
    for name in _WANTED:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    if "torch._inductor.codecache" in sys.modules:
        # 0.3 s, once for all.
        sys.modules["torch._inductor.codecache"].torch_key()


def _run_all(at_a_time, waiting, folder):
    """Print what each said. Returns the pids of the processes that they have left."""
    running, left = {}, []
    while waiting or running:
        while waiting and len(running) < at_a_time:
            script = waiting.pop(0)
            printed = Path(folder, f"{Path(script).stem}.printed")
            began = time.monotonic()
            pid = os.fork()
            if pid == 0:
                run(script, printed)
            running[pid] = (script, printed, began)
        pid, status, used = os.wait4(-1, 0)
        if pid not in running:
            left.append(pid)
            continue
        script, printed, began = running.pop(pid)
        told = {
            "script": Path(script).stem,
            "status": os.waitstatus_to_exitcode(status),
            "printed": printed.read_text(),
            "seconds": round(time.monotonic() - began, 1),
            "cpu": round(used.ru_utime + used.ru_stime, 1),
        }
        print(json.dumps(told), flush=True)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    alive = children.read_text().split() if children.exists() else []
    return [*left, *map(int, alive)]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
