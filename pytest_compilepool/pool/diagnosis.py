# SPDX-License-Identifier: Apache-2.0
"""What is needed to understand a pool that somebody waits for: state, jobs, processes, stacks, the end of its log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from pytest_compilepool import proctree
from pytest_compilepool.pool.look import PoolLook, look_at_pools
from pytest_compilepool.torch_compat import live_pools, looks

_TAIL = 2000  # bytes of a log
_STACKS_OF = 8  # processes whose stacks are asked for; more say nothing new


def explain(within: float) -> str:
    """A text of many lines about every pool of this process; "" where there is none.

    within: seconds that it may take, of which py-spy, where it is installed, gets what is left.
    """
    deadline = time.monotonic() + within
    seen = [look for look in look_at_pools() if look.processes]
    if not seen:
        return ""
    lines: list[str] = []
    pids: list[int] = []
    for look in seen:
        lines += [str(look), *_jobs(look)]
        pids += [pid for pid in (look.sidecar, *look.workers) if pid is not None]
    lines += ["", "processes: pid, parent, state, CPU seconds, waits in the kernel at"]
    lines += [_process(pid) for pid in (os.getpid(), *pids)]
    lines += ["", *_own_stacks(), *_stacks(pids[:_STACKS_OF], deadline)]
    for path in dict.fromkeys(looks.log_of(ref.object) for ref in live_pools()):
        lines += _log(path) if path else []
    return "\n".join(lines)


def _jobs(look: PoolLook) -> list[str]:
    now = time.monotonic()
    return [
        f"  job {job.number} {job.kernel or job.function}: {job.outcome or 'pending'} since {now - job.submitted:.1f} s"
        + (f", with worker pid {job.worker}" if job.worker else ", with no worker yet")
        for job in look.jobs
    ]


def _process(pid: int) -> str:
    row = proctree.lookup(pid)
    if row is None:
        return f"  {pid} has gone"
    cpu = proctree.cpu_seconds(pid)
    used = "?" if cpu is None else f"{cpu:.2f}"
    command = " ".join(proctree.command(pid))[:100]
    return (
        f"  {pid} {row.parent} {row.state} {used} {_read(f'/proc/{pid}/wchan') or '?'}  {command or row.name}"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def _own_stacks() -> list[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            lines.append(f"stack of this process, thread {names.get(ident, ident)}:")
            lines += "".join(traceback.format_stack(frame)).splitlines()
    return lines


def _stacks(pids: list[int], deadline: float) -> list[str]:
    """Of sidecars and workers: by py-spy, else what the kernel tells of them."""
    spy = shutil.which("py-spy")
    lines = []
    for pid in pids:
        said = "" if spy is None else _spied(spy, pid, deadline - time.monotonic())
        if said:
            lines += [f"stack of pid {pid}, by py-spy:", *said.splitlines()]
        else:
            kernel = _read(f"/proc/{pid}/stack").splitlines() or [f"syscall {_read(f'/proc/{pid}/syscall')}"]
            lines += [f"stack of pid {pid} in the kernel:", *(f"  {line}" for line in kernel[:6])]
    return lines


def _spied(spy: str, pid: int, seconds: float) -> str:
    try:
        command = [spy, "dump", "--nonblocking", "--pid", str(pid)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(0.05, seconds), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _log(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            text = file.read(_TAIL).decode(errors="replace")
    except OSError as error:
        return ["", f"the log of the workers, {path}: {error.strerror}"]
    return ["", f"the end of the log of the workers, {path}:", *text.splitlines()]
