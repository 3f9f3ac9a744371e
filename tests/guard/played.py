# SPDX-License-Identifier: Apache-2.0
"""Processes that play a session: with a guard or without, with children that hide, alive or dead."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass

from pytest_compilepool import proctree
from pytest_compilepool.records import ProcessKey

SESSION = r'''
import json, os, pathlib, signal, subprocess, sys, time
from pytest_compilepool import proctree
from pytest_compilepool.guard.warden import Warden
from pytest_compilepool.sessionrecord import folder_prefix

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore them (nohup)
told = json.loads(sys.argv[1])
warden = Warden(pathlib.Path("/the/root"), told.get("worker", ""))
assert warden.trouble == "", warden.trouble
os.environ[proctree.TAG] = warden.tag
warden.record.began("test_x.py::test_it", 2)
folder = pathlib.Path(os.environ["TMPDIR"])
for name in told.get("folders", []):
    made = folder / name.replace("PREFIX-", folder_prefix()).replace("PID", str(os.getpid()))
    made.mkdir(mode=0o700)
    (made / "file").write_text("x")

SLEEPS = "import sys, time; print('up', flush=True); time.sleep(600)"

HYDRA = """
import signal, subprocess, sys, time
def grow(number, frame):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "grown"], start_new_session=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, grow)
print("up", flush=True)
time.sleep(600)
"""

def up(command, **named):
    child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **named)
    assert child.stdout.readline() == b"up\n"
    return child.pid

def forked():
    pid = os.fork()
    if not pid:
        os.setsid()
        if os.fork():
            os._exit(0)
        (folder / "forked").write_text(str(os.getpid()))
        time.sleep(600)
    os.waitpid(pid, 0)
    while not (folder / "forked").exists() or not (folder / "forked").read_text():
        time.sleep(0.01)
    return int((folder / "forked").read_text())

WORKER = "/the/site-packages/torch/_inductor/compile_worker/__main__.py"
clean = {name: value for name, value in os.environ.items() if name != proctree.TAG}
MAKERS = {
    "tagged": lambda: up([sys.executable, "-c", SLEEPS]),
    "deaf": lambda: up([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); " + SLEEPS]),
    "forked": forked,
    "hydra": lambda: up([sys.executable, "-c", HYDRA]),
    "worker": lambda: up([sys.executable, "-c", SLEEPS, WORKER, f"--parent={os.getpid()}"], env=clean),
    "stranger": lambda: up([sys.executable, "-c", SLEEPS], env=clean),
    "daemon": lambda: up(
        [sys.executable, "-c", SLEEPS, "/srv/my_compile_worker_daemon.py", f"--parent={os.getpid()}"], env=clean
    ),
    "namesake": lambda: up([sys.executable, "-c", SLEEPS, f"--parent={os.getpid()}"], env=clean),
}
pids = {name: MAKERS[name]() for name in told["children"]}
print(json.dumps({"pid": os.getpid(), "guard": sorted(warden.pids)[0], "pids": pids, "tag": warden.tag}), flush=True)
if sys.stdin.readline().strip() == "end":
    warden.close()
    sys.stdin.readline()
time.sleep(600)
'''


@dataclass
class Played:
    """A process that plays a session. pids: of what it has started, by kind."""

    process: subprocess.Popen[str]
    guard: ProcessKey
    pids: dict[str, int]
    tag: str

    def alive(self) -> set[str]:
        """Kinds of its children that live."""
        return {name for name, pid in self.pids.items() if is_alive(pid)}

    def kill(self, with_guard: bool = False) -> None:
        """SIGKILL; with_guard: after the guard, so that nobody cleans up."""
        if with_guard:
            os.kill(self.guard.pid, signal.SIGKILL)
            assert proctree.wait_gone([self.guard], 10) == []
        self.process.kill()
        self.process.wait(10)

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


def is_alive(pid: int) -> bool:
    row = proctree.lookup(pid)
    return row is not None and not row.dead


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
