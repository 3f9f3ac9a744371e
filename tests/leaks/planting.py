# SPDX-License-Identifier: Apache-2.0
"""Processes that tests plant, in ways that lose them."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable

from pytest_compilepool import proctree

Fork = Callable[[Callable[[], object]], int]

SLEEP = ["sleep", "60"]


def orphan(command: str, **environment: str) -> int:
    """Have a shell start a command in the background and end: the pid of that command."""
    shell = subprocess.run(
        ["sh", "-c", f"{command} >&- 2>&- & echo $!"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    return int(shell.stdout)


def fork_twice(fork: Fork, function: Callable[[], object]) -> int:
    """Fork a child that forks one and ends: the pid of the grandchild, which is an orphan then."""
    read, write = os.pipe()

    def middle() -> None:
        pid = os.fork()
        if pid == 0:
            function()
        else:
            os.write(write, str(pid).encode())

    child = fork(middle)
    os.waitpid(child, 0)
    try:
        # One read, not up to the end: the grandchild keeps the pipe open.
        return int(os.read(read, 20))
    finally:
        os.close(read)
        os.close(write)


def forgotten(command: list[str]) -> int:
    """Start a child and drop the object that stands for it: the child's pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return subprocess.Popen(command).pid


def state(pid: int) -> str:
    row = proctree.lookup(pid)
    return "" if row is None else row.state


def is_zombie(pid: int) -> bool:
    return state(pid) == "Z"
