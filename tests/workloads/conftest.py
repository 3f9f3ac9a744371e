# SPDX-License-Identifier: Apache-2.0
"""A real worker to call the workloads in: Inductor's own pool, in an interpreter of its own."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


class JobFailed(Exception):
    """What the job's future raised; the text is the class's name and its text."""


class Worker:
    """The driver of a pool of one worker, in another interpreter. Every call is bounded."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("driver.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def parent(self) -> int:
        """Pid of the interpreter that has the pool."""
        return self._process.pid

    def submit(self, job: Call, *args: Any) -> int:
        return int(self._ask("submit", job, args))

    def result(self, number: int, seconds: float = 60.0) -> Any:
        """What the job returned; raises JobFailed."""
        kind, *told = self._ask("result", number, seconds)
        if kind == "error":
            raise JobFailed(": ".join(told))
        return told[0]

    def call(self, job: Call, *args: Any) -> Any:
        return self.result(self.submit(job, *args))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A driver that hangs is killed, and reading from it then ends with EOFError.
        bound = threading.Timer(90, self._process.kill)
        bound.start()
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        finally:
            bound.cancel()
            bound.join()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("a worker needs torch, which is not installed here")
    made = Worker()
    yield made
    made.close()


@pytest.fixture(params=["here", "in a worker"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a job with its arguments: in this process, and in a worker."""
    if request.param == "here":
        return lambda job, *args: job(*args)
    return request.getfixturevalue("worker").call
