# SPDX-License-Identifier: Apache-2.0
"""Another process that holds the lock of exclusive tests until it is told to let go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pytest_compilepool import places

TIMEOUT = 60.0

HOLDER = """
import os, pathlib, sys, time
from pytest_compilepool.exclusive import Exclusive
lock = Exclusive(60.0)
with lock.held("test_there.py::test_holder", sys.argv[1] == "alone"):
    print("held", flush=True)
    sys.stdin.read()
lock.close()
"""

ALONE = """
import os, pytest

@pytest.mark.compilepool_exclusive
@pytest.mark.timeout(1)
def test_alone():
    open("ran", "w").close()

def test_beside():
    open("beside", "w").close()
"""


class Holder:
    """It runs when the constructor returns; `entered` says when it has the lock."""

    def __init__(self, how: str, state: Path, source: str = HOLDER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, how],
            env={**os.environ, places.VARIABLE: str(state)},  # the fixture `inner` takes it out of ours
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def entered(self) -> None:
        assert self.process.stdout.readline() == "held\n"

    def let_go(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(TIMEOUT) == 0

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(TIMEOUT)
        self.process.stdout.close()
        self.process.stdin.close()
