# SPDX-License-Identifier: Apache-2.0
"""The lock of exclusive tests, and tests that are hard on it: they lose it, they mark too late, they patch the clock."""

from __future__ import annotations

import os
import sys

import pytest
from holding import ALONE

from pytest_compilepool import places
from pytest_compilepool.exclusive import CannotEnter, Exclusive

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs locks of POSIX"),
    pytest.mark.usefixtures("state"),
]


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a lock")


LOSES = {
    "a descriptor is closed": "os.close(next(int(n) for n in os.listdir('/proc/self/fd') if is_lock(n)))",
    "the file is read": "open(FILE).read()",
    "the folder is removed": "shutil.rmtree(os.environ['COMPILEPOOL_STATE'])",
}


LOST = """
import os, shutil, pytest

FILE = os.path.join(os.environ["COMPILEPOOL_STATE"], "exclusive-0.lock")

def is_lock(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}") == FILE
    except OSError:
        return False

@pytest.mark.compilepool_exclusive
def test_it():
    HOW

def test_next():
    pass

@pytest.mark.compilepool_exclusive
def test_last():
    pass
"""


@on_linux
@pytest.mark.parametrize("how", LOSES.values(), ids=LOSES.keys())
def test_a_test_that_loses_the_lock_fails(inner, state, how):
    result = inner(LOST.replace("HOW", how), environment={places.VARIABLE: str(state)})
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*so tests may have run side by side of which one is to run alone"])


def test_a_test_within_a_test_does_not_free_the_lock_of_the_other():
    lock = Exclusive(1.0)
    with lock.held("outer", True):
        with lock.held("inner", False):
            assert lock.lost == ""
        assert lock.lost == ""
        assert lock._holds
    lock.close()


def test_a_fork_of_the_session_takes_no_part():
    lock = Exclusive(1.0)
    reading, writing = os.pipe()
    asking, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        with lock.held("test", True):
            os.write(writing, b"in")
            os.read(asking, 1)
        os._exit(0)
    try:
        assert os.read(reading, 2) == b"in"
        with lock.held("test", True):
            pass
    finally:
        os.write(telling, b"x")
        os.waitpid(pid, 0)
        for fd in (reading, writing, asking, telling):
            os.close(fd)
    lock.close()


def test_without_the_kernels_list_a_holder_is_named_by_what_it_says(hold, monkeypatch):
    holder = hold("alone")
    monkeypatch.setattr(Exclusive, "_lines", lambda self: [])
    lock = Exclusive(0.2)
    with (
        pytest.raises(CannotEnter, match=f"pid {holder.process.pid} in test_there.py"),
        lock.held("t", False),
    ):
        pass
    holder.let_go()
    with lock.held("t", True):
        assert lock.lost == ""
        os.unlink(lock._path)
        assert "was closed or removed" in lock.lost


def test_a_lock_on_another_file_with_the_same_number_is_none_of_ours(state, monkeypatch):
    lines = Exclusive._lines
    others = [(os.getppid(), "ff:ff", 0), (os.getpid(), "ff:ff", 0)]  # of another device
    monkeypatch.setattr(Exclusive, "_lines", lambda self: [*lines(self), *others])
    lock = Exclusive(0.2)
    with lock.held("t", True):
        assert [path.name for path in state.iterdir()] == ["exclusive-0.lock"]
        assert lock._lockers() == [os.getpid()]
    lock.close()


@on_linux
def test_a_line_that_one_look_has_missed_is_there(monkeypatch):
    lines, looks = Exclusive._lines, []

    def torn(self):
        looks.append(0)
        return lines(self) if len(looks) % 3 == 0 else []

    lock = Exclusive(0.2)
    with lock.held("t", True):
        monkeypatch.setattr(Exclusive, "_lines", torn)
        assert all(lock.lost == "" for _ in range(10))
        monkeypatch.undo()
    lock.close()


LATE = """
import pytest

@pytest.fixture
def late(request):
    request.applymarker(pytest.mark.compilepool_exclusive)

def test_it(late):
    pass

@pytest.mark.skipif(True, reason="no")
@pytest.mark.compilepool_exclusive
def test_skipped():
    pass
"""


def test_a_mark_that_comes_too_late_fails(inner, state):
    result = inner(LATE, environment={places.VARIABLE: str(state)})
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines(["*this test was marked compilepool_exclusive while it ran*"])


PATCHED = """
import os, time, pytest

def no_sleep(seconds):
    raise RuntimeError("no sleeping")

time.sleep = no_sleep

@pytest.mark.compilepool_exclusive
def test_alone():
    os.getpid = lambda: 42

def test_next():
    pass
"""


FROZEN = """
import sys, time, pytest
import pytest_compilepool.exclusive

genuine, still = time.monotonic, time.monotonic()
def frozen():
    return still

# As freezegun does it: in the globals of whatever module has the function.
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if value is genuine and name != "genuine":
            setattr(module, name, frozen)

@pytest.mark.compilepool_exclusive
def test_alone():
    pass
"""


def test_a_clock_that_is_frozen_everywhere(inner, hold, state):
    hold("alone")
    environment = {places.VARIABLE: str(state)}
    result = inner(FROZEN, "--compilepool-exclusive-timeout=0.5", environment=environment, timeout=60)
    result.assert_outcomes(errors=1)


def test_functions_that_a_test_has_patched(inner, hold, state):
    holder = hold("alone")
    environment = {places.VARIABLE: str(state)}
    stands = PATCHED + "\nstill = time.monotonic()\ntime.monotonic = lambda: still\n"
    result = inner(stands, "--compilepool-exclusive-timeout=0.5", environment=environment, timeout=60)
    result.assert_outcomes(errors=2)
    holder.let_go()
    inner(PATCHED, environment=environment, timeout=60).assert_outcomes(passed=2)


def test_a_name_that_no_text_can_hold(inner):
    for options in ([], ["-p", "xdist", "-n", "2"]):
        result = inner(ALONE, *options, environment={places.VARIABLE: "/proc/\udcff"})
        result.assert_outcomes(errors=1, passed=1)
        assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
        assert "Traceback" not in result.stdout.str() + result.stderr.str()
        result.stdout.fnmatch_lines(["*/proc/*udcff (from COMPILEPOOL_STATE) cannot be made: *"])
