# SPDX-License-Identifier: Apache-2.0
"""The lock of exclusive tests where something is wrong: who waits in vain, whose session is below another, what is left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from holding import ALONE, HOLDER, TIMEOUT

from pytest_compilepool import exclusive, places
from pytest_compilepool.exclusive import CannotEnter, Exclusive

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs locks of POSIX"),
    pytest.mark.usefixtures("state"),
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a lock")


# -- who waits ---------------------------------------------------------------------------------------


@on_linux
def test_whoever_has_waited_in_vain_waits_less_for_the_same(hold, monkeypatch):
    monkeypatch.setattr(exclusive, "_AGAIN_IN_VAIN", 0.1)
    holder = hold("alone")
    lock = Exclusive(1.0)
    waited = "waited 1 s (--compilepool-exclusive-timeout) for"
    again = "waited 0.1 s (--compilepool-exclusive-timeout is 1, and a test before this one has waited for the same in vain)"
    for least, most, says in ((1.0, TIMEOUT, waited), (0.1, 0.8, again), (0.1, 0.8, again)):
        began = time.monotonic()
        with (
            pytest.raises(CannotEnter, match=f"pid {holder.process.pid} in") as told,
            lock.held("test", False),
        ):
            pass
        assert says in str(told.value)
        assert least <= time.monotonic() - began < most
    holder.let_go()
    with lock.held("test", False):
        pass
    lock.close()


GIVES_UP = """
import sys
from pytest_compilepool.exclusive import CannotEnter, Exclusive
lock = Exclusive(0.2)
try:
    with lock.held("test", True):
        pass
except CannotEnter:
    print("held", flush=True)   # in vain
sys.stdin.read()
lock.close()
"""


def test_whoever_gives_up_is_in_nobodys_way(hold):
    hold("shared")
    hold("alone", GIVES_UP)
    hold("shared")


@on_linux
def test_of_a_test_that_is_over_nobody_is_told(hold):
    source = HOLDER.replace(
        "with lock.held(", "with lock.held('test_over.py', True):\n    pass\nwith lock.held("
    )
    holder = hold("shared", source)
    lock = Exclusive(0.2)
    with pytest.raises(CannotEnter, match=f"pid {holder.process.pid} ") as told, lock.held("test", True):
        pass
    assert "test_over" not in str(told.value)
    lock.close()


class Lock:
    """Of a lock what the patience of a test looks at: who has it, one after the other, each time that somebody looks."""

    _timeout = 0.3

    def __init__(self, *holders):
        self.still, self._in_vain, self.told = list(holders), [], []

    def holders(self):
        return [self.still.pop(0) if len(self.still) > 1 else self.still[0]]

    def _try(self, kind, byte):
        return True

    def _tell(self, text):
        self.told.append(text)


def test_the_limit_begins_anew_when_somebody_goes(monkeypatch):
    monkeypatch.setattr(exclusive, "_TELL", 0.5)
    lock = Lock(*"abcdefghijkl")
    wait, began = exclusive._Wait(lock, "test", False), time.monotonic()

    def be_patient():
        while time.monotonic() - began < TIMEOUT:
            wait.a_moment()

    with pytest.raises(CannotEnter, match="runs alone, to end: l"):
        be_patient()
    assert time.monotonic() - began > 3 * lock._timeout
    assert len(lock.told) == 1
    assert lock.told[0].startswith("test waits for a test marked compilepool_exclusive")


LOOPING = """
import sys, time
from pytest_compilepool.exclusive import Exclusive
lock, turns = Exclusive(60.0), 0
print("there", flush=True)
sys.stdin.read()
until = time.monotonic() + 3.0
while time.monotonic() < until:
    with lock.held("test", sys.argv[1] == "alone"):
        time.sleep(0.03)
    turns += 1
lock.close()
print(turns)
"""


def test_whoever_comes_out_lets_those_in_who_wait():
    looping = [
        subprocess.Popen(
            [sys.executable, "-c", LOOPING, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for how in ("alone", "alone", "shared")
    ]
    assert [one.stdout.readline() for one in looping] == ["there\n"] * 3
    for one in looping:
        one.stdin.close()
    turns = [int(one.stdout.read()) for one in looping]
    for one in looping:
        one.stdout.close()
        assert one.wait(TIMEOUT) == 0
    assert min(turns) >= 5, turns


def test_somebody_who_wonders_is_told(inner, hold, state):
    hold("alone")
    conftest = "from pytest_compilepool import exclusive\nexclusive._TELL = 0.2\n"
    environment = {places.VARIABLE: str(state)}
    result = inner(ALONE, "--compilepool-exclusive-timeout=1", conftest=conftest, environment=environment)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["compilepool: test_inner.py::test_alone waits for the tests beside it to end: *"]
    )
    assert not Path("beside").exists()
    assert not Path("ran").exists()


SKIPPED = """
import pytest

@pytest.mark.skip
@pytest.mark.compilepool_exclusive
def test_skip():
    pass

@pytest.mark.skipif(False, True, reason="no")
@pytest.mark.compilepool_exclusive
def test_skipif():
    pass

@pytest.mark.skip
def test_shared():
    pass

@pytest.mark.skipif(condition=True, reason="no")
def test_by_name():
    pass
"""


def test_what_is_skipped_waits_for_nobody(inner, hold, state):
    hold("alone")
    environment = {places.VARIABLE: str(state)}
    inner(SKIPPED, "--compilepool-exclusive-timeout=0.5", environment=environment).assert_outcomes(skipped=4)


UNCLEAR = """
import pytest

class Unclear:
    def __bool__(self):
        raise ValueError("ambiguous")

@pytest.mark.skipif(Unclear(), reason="no")
def test_unclear():
    pass

@pytest.mark.compilepool_exclusive
def test_alone():
    pass
"""


def test_a_condition_that_cannot_be_told_is_its_tests_affair(inner, state):
    inner(UNCLEAR, environment={places.VARIABLE: str(state)}).assert_outcomes(passed=1, errors=1)


# -- sessions below others ---------------------------------------------------------------------------

BELOW = """
import os, pytest
@pytest.mark.compilepool_exclusive
def test():
    assert sorted(os.listdir(os.environ["COMPILEPOOL_STATE"])) == ["exclusive-0.lock", "exclusive-1.lock"]
"""

ABOVE = """
import os, subprocess, sys, pytest

CLEAN = {name: os.environ[name] for name in ("PATH", "HOME", "COMPILEPOOL_STATE", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")}

def test_outer():
    arguments = ["-p", "compilepool", "--compilepool-exclusive-timeout=5", "below.py"]
    if "ENVIRONMENT" == "ours":
        assert pytest.main(arguments) == 0
    else:
        subprocess.run([sys.executable, "-m", "pytest", *arguments], check=True, timeout=60, env=ENVIRONMENT)

@pytest.mark.compilepool_exclusive
def test_other():
    pass
"""


@on_linux
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("environment", ["None", "CLEAN", "ours"])
def test_a_session_below_one_does_not_wait_for_it(inner, pytester, state, alone, environment):
    pytester.path.joinpath("below.py").write_text(BELOW)
    mark = "@pytest.mark.compilepool_exclusive\n" if alone else ""
    source = ABOVE.replace("ENVIRONMENT", environment).replace("def test_outer", f"{mark}def test_outer")
    inner(source, environment={places.VARIABLE: str(state)}).assert_outcomes(passed=2)


# -- what is left ------------------------------------------------------------------------------------


def test_what_a_killed_holder_has_left_is_swept(hold, state):
    holder = hold("alone")
    exclusive.sweep(state)
    assert (state / "exclusive-0.lock").exists()
    holder.end()
    assert (state / "exclusive-0.lock").exists()
    exclusive.sweep(state)
    assert not any(state.iterdir())


@on_linux
def test_a_sweep_does_not_take_our_own_lock(state):
    lock = Exclusive(0.2)
    with lock.held("t", True):
        exclusive.sweep(state)
        assert lock.lost == ""
    handle = lock._handle
    with lock.held("t", False):
        assert lock._handle == handle >= 0
    lock.close()


def test_only_the_file_that_was_locked_is_removed():
    path = places.own_folder() / "exclusive-0.lock"
    old = places.shared_file(path)
    path.unlink()
    new = places.shared_file(path)
    with contextlib.suppress(OSError):
        exclusive.remove_if_free(old, path)
    assert path.exists()
    exclusive.remove_if_free(new, path)
    assert not path.exists()
    os.close(old)
    os.close(new)
