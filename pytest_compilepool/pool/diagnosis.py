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
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.pool.look import PoolLook, look_at_pools
from pytest_compilepool.torch_compat import live_pools, looks

_TAIL = 2000  # bytes of a log
_LAST = 5  # lines of it that are shown where not all is wanted
_STACKS_OF = 8  # processes whose stacks are asked for; more say nothing new
_BUSY = 2  # of them where not all is wanted: workers that have a job
_JOBS = 8  # that are told one by one
_NOBODYS = tuple(
    f"{os.sep}{name}{os.sep}" for name in ("_pytest", "pluggy", "pytest_timeout", "xdist", "execnet")
)
"""Folders of what runs a test: their frames do not say what it waits for."""

MORE = "-vv adds: the stacks of all threads and processes, the commands, more of the log"


def explain(within: float, everything: bool = False) -> str:
    """A text about every pool of this process; "" where there is none.

    within: seconds that it may take, of which py-spy, where it is installed, gets what is left; everything: not only what
    mostly explains it, but all that can be known.
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
    logs = [path for path in dict.fromkeys(looks.log_of(ref.object) for ref in live_pools()) if path]
    lines += ["", "processes: pid, parent, state, CPU seconds, waits in the kernel at"]
    if everything:
        lines += [f"{_process(pid)}  {_command(pid)}" for pid in (Genuine.getpid(), *pids)]
        lines += ["", *_own_stacks(), *_stacks(pids[:_STACKS_OF], deadline)]
        for path in logs:
            lines += _log(path, None)
        return "\n".join(lines)
    lines.append(f"{_process(Genuine.getpid())}  this process")
    for look in seen:
        if look.sidecar is not None:
            lines.append(f"{_process(look.sidecar)}  sidecar")
        lines += [f"{_process(pid)}  worker" for pid in look.workers]
    lines += ["", *_main_stack()]
    busy = dict.fromkeys(job.worker for look in seen for job in look.jobs if job.worker)
    lines += _spied_all(list(busy)[:_BUSY], deadline)
    for path in logs:
        lines += _log(path, _LAST)
    return "\n".join([*lines, MORE])


def _jobs(look: PoolLook) -> list[str]:
    now = time.monotonic()
    more = len(look.jobs) - _JOBS
    return [
        f"  job {job.number} {job.kernel or job.function}: {job.outcome or 'pending'} since {now - job.submitted:.1f} s"
        + (f", with worker pid {job.worker}" if job.worker else ", with no worker yet")
        for job in look.jobs[:_JOBS]
    ] + ([f"  and {more} more"] if more > 0 else [])


def _process(pid: int) -> str:
    row = proctree.lookup(pid)
    if row is None:
        return f"  {pid} has gone"
    cpu = proctree.cpu_seconds(pid)
    used = "?" if cpu is None else f"{cpu:.2f}"
    return f"  {pid} {row.parent} {row.state} {used} {_read(f'/proc/{pid}/wchan') or '?'}"


def _command(pid: int) -> str:
    return " ".join(proctree.command(pid))[:100]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def _main_stack() -> list[str]:
    """Of the thread in which tests run, without what runs them."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    stack = [] if frame is None else traceback.extract_stack(frame)
    runners = [n for n, one in enumerate(stack) if any(folder in one.filename for folder in _NOBODYS)]
    of_test = stack[runners[-1] + 1 :] if runners else stack
    shown = "".join(traceback.format_list(of_test or stack[-_LAST:])).splitlines()
    return ["stack of this process, thread MainThread:", *shown] if shown else []


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


def _spied_all(pids: list[int], deadline: float) -> list[str]:
    """Of workers, where py-spy is installed: what the kernel tells of them is no stack of Python's."""
    spy = shutil.which("py-spy")
    lines = []
    for pid in pids if spy else ():
        said = _spied(str(spy), pid, deadline - time.monotonic())
        lines += [f"stack of worker pid {pid}, by py-spy:", *said.splitlines()] if said else []
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


def _log(path: str, last: int | None) -> list[str]:
    """The end of it; last: so many lines, None for what there is room for. Nothing of an empty one."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            text = file.read(_TAIL).decode(errors="replace")
    except OSError as error:
        return ["", f"the log of the workers, {path}: {error.strerror}"]
    lines = text.splitlines()[-last:] if last else text.splitlines()
    return ["", f"the end of the log of the workers, {path}:", *lines] if lines else []
