# SPDX-License-Identifier: Apache-2.0
"""One session of pytest, in a process of its own, that ends in one of many ways with a pool in one of three states.

`play` says how it ended, after how long, and what was left of it: found by a variable that the session is started with and
that all of its descendants carry, whether they executed something or were forked only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from memory_limit import MemoryLimit

from pytest_compilepool import proctree, sessionrecord
from pytest_compilepool.sessionrecord import Account

VARIABLE = "COMPILEPOOL_TEST_ENDING"
CLEAN_WITHIN = 3.0  # seconds after its end in which all that belonged to a session must be gone
START_WITHIN = (
    90.0  # seconds until the test has its pool: two interpreters import torch, on CPUs that others use
)

POOLS = ("idle", "busy", "never")
"""What the pool does when the session ends: it waits; it has jobs of a second; one that never ends."""


@dataclass(frozen=True)
class Ending:
    """A way to end. name; status: exit status alone; of_run: with xdist; act: what is done from outside to the process,
    once the test is there; options; within: seconds; record: whether the record of the test must have survived; cgroup:
    whether a worker is given little memory, and killed by the kernel for using more."""

    name: str
    status: int
    of_run: int
    act: Callable[[subprocess.Popen[bytes]], None] | None = None
    options: tuple[str, ...] = ()
    within: float = 15.0
    record: bool = False
    only_xdist: bool = False
    cgroup: bool = False


@dataclass
class Outcome:
    """What was seen. there: whether the test had its pool when it ended; status: None where it had to be killed; took:
    seconds from the ending to the end of the process; clean: seconds from there until nothing was left; left, shared,
    folders: what still was after CLEAN_WITHIN; kills: of workers, by the kernel, for their memory."""

    there: bool
    status: int | None
    took: float
    clean: float
    left: list[str]
    shared: list[str]
    folders: list[str]
    records: list[Account] = field(default_factory=list)
    output: str = ""
    kills: int = 0


def _to_the_group(process: subprocess.Popen[bytes]) -> None:
    """As a terminal does it: to all of the foreground, xdist's workers and whatever they have started."""
    os.killpg(process.pid, signal.SIGINT)


def _twice(process: subprocess.Popen[bytes]) -> None:
    _to_the_group(process)
    # Whoever is not content with once presses again while it is busy.
    try:
        process.wait(0.4)
    except subprocess.TimeoutExpired:
        _to_the_group(process)


# Of the test alone: with its fixtures the time would be up before there is a pool.
TIMEOUT = ("-p", "pytest_timeout", "--timeout=2", "-o", "timeout_func_only=true")

ENDINGS = {
    one.name: one
    for one in (
        Ending("normal", 0, 0),
        # xdist's word for it is that it was interrupted.
        Ending("first-failure", 1, 2, options=("-x",)),
        Ending("failing-fixture", 1, 1),
        Ending("pytest.exit", 2, 2),
        Ending("ctrl-c", 2, 2, _to_the_group),
        Ending("ctrl-c-twice", 2, 2, _twice),
        Ending("sigterm", -signal.SIGTERM, -signal.SIGTERM, lambda process: process.terminate(), record=True),
        Ending("sigkill", -signal.SIGKILL, -signal.SIGKILL, lambda process: process.kill(), record=True),
        Ending("segfault", -signal.SIGSEGV, 1, record=True),
        Ending("os._exit", 3, 1, record=True),
        Ending("worker-killed", 0, 0),
        Ending("worker-out-of-memory", 0, 0, cgroup=True),
        Ending("timeout-signal", 1, 1, options=(*TIMEOUT, "--timeout-method=signal")),
        Ending(
            "timeout-thread",
            1,
            1,
            options=(*TIMEOUT, "--timeout-method=thread"),
            record=True,
        ),
        # Only the controller hears of it; it gives its workers ten seconds, and this one does not go.
        Ending(
            "killed-by-xdist",
            2,
            2,
            lambda process: process.send_signal(signal.SIGINT),
            within=25.0,
            record=True,
            only_xdist=True,
        ),
    )
}

TESTS = """
import ctypes, os, pathlib, signal, time
import pytest

ENDING, POOL, FOLDER = os.environ["ENDING"], os.environ["POOL"], pathlib.Path(os.environ["FOLDER"])
BUSY = {"idle": [], "busy": [1.0] * 4, "never": [1e6]}[POOL]

def give_jobs(pool):
    assert pool.submit(os.getpid).result(30) in {key.pid for key in pool.workers}
    for seconds in BUSY:
        pool.submit(time.sleep, seconds)

def wait_for_ever():
    while True:
        time.sleep(60)

def is_there(name):
    (FOLDER / f"{name}.part").write_text(repr(time.monotonic()))
    (FOLDER / f"{name}.part").replace(FOLDER / name)

def segfault(pool):
    ctypes.string_at(0)

def give_a_second_job(pool):
    # An answer or an error, and no silence.
    try:
        pool.submit(os.getpid).result(20)
    except TimeoutError:
        raise
    except Exception:
        pass

def kill_a_worker(pool):
    os.kill(pool.workers[0].pid, signal.SIGKILL)
    give_a_second_job(pool)

# A builtin runs it: the sidecar knows no module of ours.
EAT = '''
import os
with open(os.environ["CGROUP"] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
eaten = []
while len(eaten) < 512:   # 4 GiB: where nobody kills it it stops by itself
    eaten.append(b"x" * (8 << 20))
'''

def use_up_its_memory(pool):
    job = pool.submit(exec, EAT)
    with pytest.raises(Exception) as told:
        job.result(20)
    assert not isinstance(told.value, TimeoutError)
    give_a_second_job(pool)

def fail(pool):
    assert False, "as it was to"

def leave(pool):
    pytest.exit("enough")

ACTS = {
    "normal": lambda pool: None,
    "first-failure": fail,
    "failing-fixture": lambda pool: None,
    "pytest.exit": leave,
    "segfault": segfault,
    "os._exit": lambda pool: os._exit(3),
    "worker-killed": kill_a_worker,
    "worker-out-of-memory": use_up_its_memory,
}

@pytest.fixture
def a_fixture(compile_pool):
    give_jobs(compile_pool)
    if ENDING == "failing-fixture":
        is_there("there")
        raise RuntimeError("as it was to")
    return compile_pool

def test_that_ends_it(a_fixture):
    is_there("there")
    while ENDING == "killed-by-xdist":
        try:
            wait_for_ever()
        except BaseException:
            pass
    ACTS.get(ENDING, lambda pool: wait_for_ever())(a_fixture)

def test_beside_it(compile_pool):
    assert compile_pool.submit(os.getpid).result(30)
"""


def play(ending: Ending, xdist: bool, pool: str, folder: Path) -> Outcome:
    """One session. folder: an empty one."""
    token = uuid.uuid4().hex
    kills = 0
    (folder / "test_ending.py").write_text(TESTS)
    (folder / "tmp").mkdir()
    environment = _environment(ending, pool, folder) | {VARIABLE: token}
    shared = _shared_memory()
    limit = MemoryLimit(256) if ending.cgroup else contextlib.nullcontext()
    with limit, open(folder / "output", "wb") as output:
        if ending.cgroup:
            environment["CGROUP"] = str(limit.path)
        began = time.monotonic()
        process = subprocess.Popen(
            _command(ending, xdist),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            there = _await_file(folder / "there", process, began + START_WITHIN)
            if ending.act is not None and there:
                ending.act(process)
            status, took = _await_end(process, ending.within)
            left, clean = _await_clean(token)
            still_shared = _await_shared(shared)
        finally:
            _end(process, token)
            if ending.cgroup:
                kills = limit.kills
    return Outcome(
        there,
        status,
        round(took, 2),
        round(clean, 2),
        left,
        still_shared,
        sorted(path.name for path in (folder / "tmp").iterdir() if not _is_kept(path.name)),
        [sessionrecord.read_account(path) for path in sessionrecord.records(folder / "state")],
        (folder / "output").read_text(errors="replace"),
        kills,
    )


def _environment(ending: Ending, pool: str, folder: Path) -> dict[str, str]:
    """Of the session: ours, but for what would lead it, and what its tests are to do."""
    leading = (
        "PYTEST_",
        "TORCHINDUCTOR_",
        "TRITON_",
        "VLLM_",
        "COMPILEPOOL_",
        "PYTHONDEVMODE",
        "PYTHONFAULT",
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(leading)} | {
        "ENDING": ending.name,
        "POOL": pool,
        "FOLDER": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "COMPILEPOOL_STATE": str(folder / "state"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _command(ending: Ending, xdist: bool) -> list[str]:
    alone = ("-k", "ends_it") if not xdist else ("-p", "xdist", "-n", "2")
    options = (*ending.options, *alone, "-p", "no:cacheprovider", "-p", "compilepool", "-q", "--color=no")
    return [sys.executable, "-m", "pytest", *options, "--compilepool-processes=2", "test_ending.py"]


def _await_end(process: subprocess.Popen[bytes], within: float) -> tuple[int | None, float]:
    """The exit status, None where it has none so many seconds later; and how long that took."""
    acted = time.monotonic()
    try:
        status: int | None = process.wait(within)
    except subprocess.TimeoutExpired:
        status = None
    return status, time.monotonic() - acted


def _await_file(path: Path, process: subprocess.Popen[bytes], deadline: float) -> bool:
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            return True
        time.sleep(0.02)
    return path.exists()


def _of_session(token: str) -> list[int]:
    return [
        pid
        for pid, row in proctree.table().items()
        if not row.dead and proctree.environment_value(pid, VARIABLE) == token
    ]


def _await_clean(token: str) -> tuple[list[str], float]:
    """What is still there after CLEAN_WITHIN, as text, and after how long nothing was."""
    began = time.monotonic()
    while True:
        pids = _of_session(token)
        took = time.monotonic() - began
        if not pids or took > CLEAN_WITHIN:
            return [f"pid {pid} {' '.join(proctree.command(pid))[:150]}" for pid in pids], took
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes], token: str) -> None:
    """Of what failed here nothing stays either."""
    for pid in {process.pid, *_of_session(token)} if process.returncode is None else _of_session(token):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait(10)


def _await_shared(before: set[str]) -> list[str]:
    """Shared memory and semaphores that nobody of this machine uses, CLEAN_WITHIN after the end: others come and go.

    What a session has left is there when it has ended: what comes later is another program's.
    """
    began = time.monotonic()
    new = _shared_memory() - before
    while new := new & _shared_memory():
        used = {
            Path(line.split(maxsplit=5)[5].removesuffix(" (deleted)")).name
            for pid in proctree.table()
            for line in _maps(pid)
            if "/dev/shm/" in line
        }
        if not new - used:
            return []
        if time.monotonic() - began > CLEAN_WITHIN:
            return sorted(new - used)
        time.sleep(0.05)
    return []


def _maps(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return []


def _shared_memory() -> set[str]:
    try:
        return set(os.listdir("/dev/shm"))
    except OSError:
        return set()


def _is_kept(name: str) -> bool:
    """pytest keeps the folders of its last three sessions, and torch its cache: both on purpose."""
    return name.startswith(("pytest-of-", "torchinductor_"))
