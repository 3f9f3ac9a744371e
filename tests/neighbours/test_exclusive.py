# SPDX-License-Identifier: Apache-2.0
"""A test that is marked runs while no other does: of the same run, and of sessions beside it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_compilepool import exclusive, places
from pytest_compilepool.exclusive import CannotEnter, Exclusive

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs locks of POSIX")

TIMEOUT = 60.0


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A folder of this test's own: neither the sessions of this machine nor the one around it meet it there."""
    folder = tmp_path / "state"
    monkeypatch.setenv(places.VARIABLE, str(folder))
    monkeypatch.delenv(exclusive.DEPTH, raising=False)
    return folder


# -- among the workers of one run --------------------------------------------------------------------

BESIDE = """
import os, pathlib, time, pytest

INSIDE = pathlib.Path("inside")

def others():
    return sorted(set(os.listdir(INSIDE)) - {str(os.getpid())})

@pytest.fixture(autouse=True)
def inside():
    INSIDE.mkdir(exist_ok=True)
    mine = INSIDE / str(os.getpid())
    mine.touch()
    yield
    mine.unlink()

def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)

@pytest.mark.parametrize("number", range(12))
def test_beside(number):
    met = pathlib.Path("met")
    if not met.exists():   # that they really run side by side is shown once
        wait_for(lambda: met.exists() or others(), "nobody has come")
        met.touch()

MARK = pytest.mark.compilepool_exclusive(reason="looks at everybody")

@pytest.mark.parametrize("number", range(3))
@MARK
def test_alone(number):
    until = time.monotonic() + 0.3   # long enough for the others, who would come at once
    while time.monotonic() < until:
        assert others() == []
"""


def test_workers_of_one_run_wait_for_it_and_it_for_them(inner, state):
    result = inner(BESIDE, "-p", "xdist", "-n", "3", environment={places.VARIABLE: str(state)})
    result.assert_outcomes(passed=15)
    assert not any(state.iterdir()), "the last one takes its lock with it"


def test_without_the_mark_they_meet(inner, state):
    # The same tests, or the one above would show nothing.
    source = BESIDE.replace("@MARK\n", "")
    result = inner(source, "-p", "xdist", "-n", "3", environment={places.VARIABLE: str(state)})
    assert result.ret == 1
    result.stdout.re_match_lines([r".*assert \['\d+'.*\] == \[\]"])


def test_whoever_has_none_has_no_lock(inner, state):
    source = f"import os, pytest\ndef test():\n    assert {exclusive.DEPTH!r} not in os.environ\n"
    inner(source, environment={places.VARIABLE: str(state)}).assert_outcomes(passed=1)
    assert not state.exists() or not any(state.iterdir())


# -- beside another session --------------------------------------------------------------------------

HOLDER = """
import pathlib, sys, time
from pytest_compilepool.exclusive import Exclusive
lock = Exclusive(60.0)
with lock.held("test_there.py::test_holder", sys.argv[1] == "alone"):
    print("held", flush=True)
    sys.stdin.read()
lock.close()
"""


class Holder:
    """Another process that holds the lock until it is told."""

    def __init__(self, how: str, state: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, how],
            env={**os.environ, places.VARIABLE: str(state)},  # `inner` takes it out of ours
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "held\n"

    def let_go(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(TIMEOUT) == 0

    def end(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        self.process.stdout.close()
        self.process.stdin.close()


@pytest.fixture
def hold(state):
    made: list[Holder] = []

    def start(how: str) -> Holder:
        made.append(Holder(how, state))
        return made[-1]

    yield start
    for holder in made:
        holder.end()


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        ("shared", True, "is to run alone, and waited 0.3 s (--compilepool-exclusive-timeout) for the tests beside it"),
        ("alone", True, "is to run alone, and waited 0.3 s"),
        ("alone", False, "waited 0.3 s (--compilepool-exclusive-timeout) for a test that has the machine to itself"),
    ],
)  # fmt: skip
def test_whoever_waits_for_too_long_is_told_for_whom(hold, theirs, ours, says):
    holder = hold(theirs)
    lock = Exclusive(0.3)
    with pytest.raises(CannotEnter) as told, lock.held("test_x.py::test_y", ours):
        pass
    assert str(told.value).startswith(f"test_x.py::test_y {says}")
    assert f"pid {holder.process.pid} " in str(told.value)
    if theirs == "alone":
        assert f"pid {holder.process.pid} in test_there.py::test_holder" in str(told.value)
    holder.let_go()
    with lock.held("test_x.py::test_y", ours):
        assert os.environ[exclusive.DEPTH] == "1"
    assert exclusive.DEPTH not in os.environ
    lock.close()


def test_whoever_shares_waits_for_nobody_who_shares(hold):
    hold("shared")
    lock = Exclusive(0.0)
    with lock.held("test", False):
        pass
    lock.close()


def test_whoever_waits_to_be_alone_is_not_overtaken(hold, state):
    first = hold("shared")
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "alone"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        lock = Exclusive(0.05)
        deadline = time.monotonic() + TIMEOUT
        while True:  # until it is at the turnstile
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(lock.held("test", False))
                except CannotEnter as told:
                    said = str(told)
                    break
            assert time.monotonic() < deadline, "it has not come to the turnstile"
        assert f"pid {waiting.pid} " in said
        first.let_go()
        assert waiting.stdout.readline() == "held\n"
    finally:
        waiting.kill()
        waiting.wait(TIMEOUT)
        waiting.stdout.close()
        waiting.stdin.close()
    with lock.held("test", False):  # and of one that was killed nothing stays
        pass
    lock.close()
    assert not state.exists() or not any(state.iterdir())


def test_what_a_holder_has_forked_does_not_hold_it(state):
    source = HOLDER.replace(
        "    print(",
        "    import os\n    if os.fork() == 0:\n        time.sleep(600)\n        os._exit(0)\n    print(",
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", source, "alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(TIMEOUT)
        lock = Exclusive(5.0)
        with lock.held("test", True):
            os.killpg(holder.pid, 0)  # its child is there still
        lock.close()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait(TIMEOUT)
        holder.stdout.close()
        holder.stdin.close()


COUNTING = """
import pathlib, sys
from pytest_compilepool.exclusive import Exclusive
number = pathlib.Path(sys.argv[1])
for _ in range(100):
    lock = Exclusive(60.0)
    with lock.held("test", True):
        number.write_text(str(int(number.read_text()) + 1))
    lock.close()   # the file goes and comes again: whoever has opened the old one has to see that
"""


def test_files_that_come_and_go_do_not_let_two_in(tmp_path, state):
    number = tmp_path / "number"
    number.write_text("0")
    counting = [subprocess.Popen([sys.executable, "-c", COUNTING, str(number)]) for _ in range(4)]
    assert [one.wait(TIMEOUT) for one in counting] == [0, 0, 0, 0]
    assert number.read_text() == "400"
    assert not state.exists() or not any(state.iterdir())


# -- in a session ------------------------------------------------------------------------------------

ALONE = """
import os, pytest

@pytest.mark.compilepool_exclusive
@pytest.mark.timeout(1)
def test_alone():
    open("ran", "w").close()

def test_beside():
    pass
"""


def test_a_test_that_waited_in_vain_fails_and_says_why(inner, hold, state):
    hold("shared")
    result = inner(ALONE, "--compilepool-exclusive-timeout=0.5", environment={places.VARIABLE: str(state)})
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        ["*test_inner.py::test_alone is to run alone, and waited 0.5 s *still running: pid *"]
    )
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_waiting_is_no_time_of_the_test(pytester, hold, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    holder = hold("alone")
    pytester.makepyfile(test_inner=ALONE)
    session = pytester.popen(
        [sys.executable, "-m", "pytest", "-p", "compilepool", "-p", "pytest_timeout", "-q"],
        stdin=subprocess.DEVNULL,
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            session.wait(4.0)  # longer than the test may take
        holder.let_go()
        output, _ = session.communicate(timeout=TIMEOUT)
    finally:
        session.kill()
    assert session.returncode == 0, output


def test_ctrl_c_ends_the_waiting(pytester, hold, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    hold("alone")
    pytester.makepyfile(test_inner=ALONE)
    session = pytester.popen(
        [sys.executable, "-u", "-m", "pytest", "-p", "compilepool", "-p", "no:randomly", "-s"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        while b"collected 2 items" not in session.stdout.readline():
            pass
        with pytest.raises(subprocess.TimeoutExpired):
            session.wait(0.5)
        session.send_signal(signal.SIGINT)
        output, _ = session.communicate(timeout=TIMEOUT)
    finally:
        session.kill()
    assert session.returncode == 2, output
    assert not Path("ran").exists()


def test_a_session_below_one_does_not_wait_for_it(pytester, inner, state):
    source = """
    import os, subprocess, sys, pytest

    @pytest.mark.compilepool_exclusive
    def test_outer(tmp_path):
        (tmp_path / "test_below.py").write_text(
            "import os, pytest\\n@pytest.mark.compilepool_exclusive\\ndef test(): assert os.environ['DEPTH'] == '2'\\n"
        )
        below = [sys.executable, "-m", "pytest", "-p", "compilepool", str(tmp_path)]
        subprocess.run(below, check=True, timeout=60)
    """.replace("DEPTH", exclusive.DEPTH)
    inner(source, environment={places.VARIABLE: str(state)}).assert_outcomes(passed=1)


@pytest.mark.parametrize("mark", ["('because')", "(reason=3)", "(why='x')"])
def test_a_mark_that_is_wrong_is_told(inner, mark):
    result = inner(f"import pytest\n@pytest.mark.compilepool_exclusive{mark}\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: test_inner.py::test_it: @pytest.mark.compilepool_exclusive: *"])


# -- places that are not to be had -------------------------------------------------------------------


def _is_refused(inner, place: Path, says: str) -> None:
    result = inner(ALONE, environment={places.VARIABLE: str(place)})
    result.assert_outcomes(errors=1, passed=1)
    said = re.sub(r"\s+", " ", result.stdout.str())
    assert f"test_inner.py::test_alone cannot have the machine to itself: {says}" in said
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_made(inner):
    _is_refused(inner, Path("/proc/nothing"), "/proc/nothing (from COMPILEPOOL_STATE) cannot be made: ")


def test_a_folder_that_others_may_enter(inner, tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    _is_refused(inner, tmp_path / "open", f"{tmp_path / 'open'} (from COMPILEPOOL_STATE) is not used: ")


def test_a_link_in_its_place(inner, state, tmp_path):
    (tmp_path / "precious").write_text("precious")
    state.mkdir(mode=0o700)
    (state / "exclusive-0.lock").symlink_to(tmp_path / "precious")
    _is_refused(inner, state, f"{state / 'exclusive-0.lock'} is not used: it is a symbolic link")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_file_that_others_may_write(inner, state):
    state.mkdir(mode=0o700)
    (state / "exclusive-0.lock").touch(mode=0o600)
    (state / "exclusive-0.lock").chmod(0o666)
    _is_refused(
        inner,
        state,
        f"{state / 'exclusive-0.lock'} is not used: it is not a file that only this user may write",
    )


def test_who_holds_it_is_not_believed_blindly(hold, state):
    holder = hold("shared")
    (state / "exclusive-0.lock").write_text('{"pid": ["x"], "test": 3}')
    lock = Exclusive(0.1)
    with (
        pytest.raises(CannotEnter, match=f"still running: pid {holder.process.pid} \\("),
        lock.held("t", True),
    ):
        pass
    lock.close()


def test_a_test_that_closes_what_it_does_not_own(hold, state, tmp_path):
    lock = Exclusive(5.0)
    with lock.held("t", True):
        os.close(lock._handle)
        taken = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)  # the number is somebody else's now
        assert taken == lock._handle
    os.fstat(taken)
    with lock.held("t", True):
        assert lock._handle != taken
        os.close(lock._handle)
    with lock.held("t", True):  # nobody has it now
        pass
    lock.close()
    os.fstat(taken)
    os.close(taken)
    assert not state.exists() or not any(state.iterdir())


@pytest.mark.parametrize("told", ["banana", "-1", "99999999"])
def test_a_depth_that_is_none(told, monkeypatch, state):
    monkeypatch.setenv(exclusive.DEPTH, told)
    lock = Exclusive(1.0)
    with lock.held("t", True):
        assert os.environ[exclusive.DEPTH] == "1"
        assert [path.name for path in state.iterdir()] == ["exclusive-0.lock"]
    assert os.environ[exclusive.DEPTH] == told
    lock.close()
