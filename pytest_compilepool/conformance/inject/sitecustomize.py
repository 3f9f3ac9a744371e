# SPDX-License-Identifier: Apache-2.0
"""Faults for a sidecar, from outside: Python runs this file when an interpreter starts that has its folder on the path.

Only an interpreter that a bench has started by itself is meant (`COMPILEPOOL_BENCH` is the bench's pid), and only
what `COMPILEPOOL_FAULTS` names happens: JSON, pairs of name and value. Another `sitecustomize` on the path is run, too.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _run_the_next_one():
    """The one that this file hides."""
    path = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def fork(value):
    """os.fork fails with EAGAIN after that many successes: the limit of processes is reached."""
    import errno

    real, left = os.fork, [int(value)]

    def limited():
        if left[0] <= 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left[0] -= 1
        return real()

    os.fork = limited


def _limit(name, value):
    import resource

    number = getattr(resource, name)
    resource.setrlimit(number, (int(value), resource.getrlimit(number)[1]))


def memory(value):
    """At most that many bytes of address space."""
    _limit("RLIMIT_AS", value)


def descriptors(value):
    """From the first fork on, that many file descriptors more than are open then."""
    limited = []

    def limit():
        if not limited:
            limited.append(True)
            highest = max(map(int, os.listdir("/proc/self/fd")))
            _limit("RLIMIT_NOFILE", highest + 1 + int(value))

    os.register_at_fork(before=limit)


def birth(value):
    """Whatever is forked ends at once, with status 1; a line is added to the file `value` for each."""

    def end():
        with open(value, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        os._exit(1)

    os.register_at_fork(after_in_child=end)


def start(value):
    """The interpreter ends with that status before it has done anything, and says why."""
    os.write(2, b"planted: this sidecar cannot start\n")
    os._exit(int(value))


def threads(value):
    """Each fork adds a line with the number of threads of this process to the file `value`."""

    def note():
        with open(value, "a", encoding="utf-8") as file:
            file.write(f"{len(os.listdir('/proc/self/task'))}\n")

    os.register_at_fork(before=note)


def mutant(value):
    """Call `module:function` with the word "sidecar"."""
    import importlib

    module, _, name = value.partition(":")
    getattr(importlib.import_module(module), name)("sidecar")


if os.environ.get("COMPILEPOOL_BENCH") == str(os.getppid()):
    with open(os.environ["COMPILEPOOL_PLANTED"], "a", encoding="utf-8") as _file:
        _file.write(f"{os.getpid()}\n")
    try:
        for _name, _value in json.loads(os.environ.get("COMPILEPOOL_FAULTS", "[]")):
            globals()[_name](_value)
    except BaseException as _error:
        # Python would print it and go on without the fault.
        os.write(2, f"a fault could not be planted: {_error!r}\n".encode())
        os._exit(99)
_run_the_next_one()
