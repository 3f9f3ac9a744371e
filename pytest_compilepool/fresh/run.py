# SPDX-License-Identifier: Apache-2.0
"""Starting a fresh interpreter, waiting for it within a bound, and ending all of it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool import proctree
from pytest_compilepool.fresh import callables
from pytest_compilepool.fresh.ending import end_all
from pytest_compilepool.fresh.order import Answer, Order

__tracebackhide__ = callables.hidden

ORDER, ANSWER, OUTPUT, LOG, STAGE = "order.pkl", "answer.json", "output.pt", "log.txt", "stage.txt"
PATH = "path.json"

# With this process's sys.path, whatever put it together; no variable of the environment is touched for it.
_BOOT = (
    "import json, os, sys; sys.path[:] = json.load(open(os.path.join(sys.argv[1], 'path.json'))); "
    "from pytest_compilepool.fresh import child; sys.exit(child.main(*sys.argv[1:]))"
)

SPARE = 20.0
"""Seconds beyond its own limit after which an interpreter is ended from outside: by then it has ended itself."""

EXIT_SECONDS = 10.0
"""Seconds that an interpreter may take to exit once it has answered; then it ends itself."""

_LOG_LINES, _LOG_WIDTH = 60, 400

# So faulthandler says it.
_TIMEOUT = re.compile(r"^Timeout \(\d+:\d\d:\d\d", re.MULTILINE)


class FreshFailed(RuntimeError):
    """A fresh interpreter ended without an answer. Its text says how, in which stage, and the end of its log."""

    told_in_full = True


@dataclass(frozen=True)
class Folders:
    """Where a run keeps its things: `run` for order, answer and log; the caches that it compiles into."""

    run: Path
    inductor: Path
    triton: Path
    vllm: Path

    @classmethod
    def below(cls, caches: Path, run: Path) -> Folders:
        """Make them. caches: their parent; run: of this one run."""
        made = cls(run, caches / "inductor", caches / "triton", caches / "vllm")
        for folder in (made.run, made.inductor, made.triton, made.vllm):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return made


def run(order: Order, folders: Folders, environment: Mapping[str, str | None] | None = None) -> Answer:
    """Have a fresh interpreter do it. environment: variables to set, or with None to unset, in it.

    What the function raised is in the answer; FreshFailed says that there is none. Nothing of the
    interpreter is left afterwards, neither it nor what it started.
    """
    with open(folders.run / ORDER, "wb") as file:
        pickle.dump(order, file)
    for name in (ANSWER, OUTPUT, STAGE):
        (folders.run / name).unlink(missing_ok=True)
    # A mark of its own: what it leaves behind has lost its parent by the time that it has ended.
    tag = proctree.tag_below()
    (folders.run / PATH).write_text(json.dumps(list(order.path)), encoding="utf-8")
    command = [sys.executable, "-c", _BOOT, str(folders.run), str(os.getpid())]
    with open(folders.run / LOG, "wb") as log:
        # Started, not forked: it works whatever this process has initialised.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(order, folders, {**(environment or {}), proctree.TAG: tag}),
            # A session of its own: whatever it leaves can be told by it, even when it has ended.
            start_new_session=True,
        )
        try:
            code = _wait(child, order.limit + SPARE)
        finally:
            end_all(child, tag)
    answer = _answer(folders.run, child.pid, code, order.limit)
    answer.faults += _moved(answer, folders)
    return answer


def _moved(answer: Answer, folders: Folders) -> Iterator[str]:
    """Caches that were put elsewhere: what is in them nobody will look at. Below the folders that were given they
    may be: vLLM puts Inductor's into its own."""
    for name, folder in answer.caches.items():
        if not Path(folder).is_relative_to(folders.triton.parent):
            yield f"{name} was moved to {folder or 'nowhere'}: what was compiled there is not looked at"


def command_to_repeat(folder: Path) -> str:
    """The shell command that does the same run again, over new empty caches. folder: its `run` folder, kept."""
    caches = "TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) TRITON_CACHE_DIR=$(mktemp -d)"
    return f"{caches} {sys.executable} -m pytest_compilepool.fresh.child {folder}"


def _environment(order: Order, folders: Folders, extra: Mapping[str, str | None]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # Sets of texts in the same order in each interpreter, or two of them would seem to differ.
    environment.setdefault("PYTHONHASHSEED", "0")
    environment |= {
        "TORCHINDUCTOR_CACHE_DIR": str(folders.inductor),
        "TRITON_CACHE_DIR": str(folders.triton),
        "VLLM_CACHE_ROOT": str(folders.vllm),
        "TORCHINDUCTOR_COMPILE_THREADS": str(order.processes),
        "TORCHINDUCTOR_WORKER_START": order.start_method,
    }
    if order.target is not None:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    for name, value in extra.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit status, or None if it is still there after that time."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _answer(folder: Path, pid: int, code: int | None, limit: float) -> Answer:
    try:
        told = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = None
    # Saying where every thread is may itself crash, in the middle of an import of torch (Python 3.11).
    timed_out = code is None or (
        code in (1, -signal.SIGSEGV) and bool(_TIMEOUT.search(_end_of(folder / LOG)))
    )
    if told is not None and told.get("pid") == pid:
        answer = Answer.from_json(told)
        if code is not None and code < 0 and not timed_out:
            answer.faults.append(f"the interpreter was killed by signal {-code} after it had answered")
        elif timed_out:
            answer.faults.append(
                f"the interpreter did not exit within {EXIT_SECONDS:g} s after it had answered"
            )
        return answer
    stage = _end_of(folder / STAGE) or "start"
    if timed_out:
        how = f"was still at it after {limit:g} s and was ended"
    elif code is not None and code < 0:
        how = f"was killed by signal {-code}"
    else:
        how = f"ended with status {code} and no answer"
    raise FreshFailed(
        f"the fresh interpreter {how}, in stage {stage!r}; its order and log are in {folder}, the end of the log:\n"
        f"{log_tail(folder)}"
    )


def log_tail(folder: Path) -> str:
    """The last lines of what a run printed, indented; long ones are cut."""
    lines = [
        line if len(line) <= _LOG_WIDTH else f"{line[:_LOG_WIDTH]} ..."
        for line in _end_of(folder / LOG).splitlines()
    ]
    return "\n".join(f"    {line}" for line in lines[-_LOG_LINES:]) or "    (nothing)"


def _end_of(file: Path) -> str:
    """The end of a text file, at most 64 KiB; an empty text where there is none."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 65536))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
