# SPDX-License-Identifier: Apache-2.0
"""A test that is marked runs while no other does: of the same run, and of sessions beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from holding import ALONE, HOLDER, TIMEOUT, Holder

from pytest_compilepool import places
from pytest_compilepool.exclusive import CannotEnter, Exclusive

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs locks of POSIX"),
    pytest.mark.usefixtures("state"),
]

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
    source = (
        "import os, pytest\ndef test():\n    assert not os.path.exists(os.environ['COMPILEPOOL_STATE'])\n"
    )
    inner(source, environment={places.VARIABLE: str(state)}).assert_outcomes(passed=1)


MARKED = """
import pytest
from pytest_compilepool.keys import ROOM

@pytest.mark.compilepool_exclusive
class TestIt:
    def test_it(self, request):
        assert request.node.stash[ROOM] is True

def test_it(request):
    assert request.node.stash[ROOM] is False
"""


def test_the_mark_of_a_class_counts(inner, state):
    inner(MARKED, environment={places.VARIABLE: str(state)}).assert_outcomes(passed=2)


MOVED = """
import os, pytest

@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    os.environ["HOME"] = os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("home"))
"""


MOVED_AT_IMPORT = """
import os
os.environ["HOME"] = os.environ["XDG_STATE_HOME"] = os.path.abspath(os.environ.get("PYTEST_XDIST_WORKER", "controller"))
"""


@pytest.mark.parametrize("conftest", [MOVED, MOVED_AT_IMPORT])
def test_workers_that_move_their_home_still_meet(inner, tmp_path, conftest):
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": ""}
    inner(BESIDE, "-p", "xdist", "-n", "3", conftest=conftest, environment=environment).assert_outcomes(
        passed=15
    )
    assert not (tmp_path / ".local" / "state" / "compilepool").exists()


STATE_MOVED = """
import os
os.environ["COMPILEPOOL_STATE"] = os.path.abspath("moved-" + os.environ.get("PYTEST_XDIST_WORKER", "controller"))
"""


@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "1"]])
def test_the_folder_is_that_of_the_start(inner, state, options):
    source = f"""
import os, pytest
@pytest.mark.compilepool_exclusive
def test_it():
    assert "exclusive-0.lock" in os.listdir({str(state)!r})
"""
    result = inner(source, *options, conftest=STATE_MOVED, environment={places.VARIABLE: str(state)})
    result.assert_outcomes(passed=1)


# -- beside another session --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        ("shared", True, "is to run alone, and waited 0.3 s (--compilepool-exclusive-timeout) for the tests beside it"),
        ("alone", True, "is to run alone, and waited 0.3 s"),
        ("alone", False, "was not run: it waited 0.3 s (--compilepool-exclusive-timeout) for a test marked"),
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
        assert lock.lost == ""
    lock.close()


def test_whoever_shares_waits_for_nobody_who_shares(hold):
    hold("shared")
    lock = Exclusive(0.0)
    with lock.held("test", False):
        pass
    lock.close()


LATER = """
import time
from pytest_compilepool.exclusive import CannotEnter, Exclusive
lock, deadline = Exclusive(0.05), time.monotonic() + 60
while time.monotonic() < deadline:   # until the other one is at the turnstile
    try:
        with lock.held("test", False):
            pass
    except CannotEnter as told:
        print(told, flush=True)
        break
"""


def test_whoever_waits_to_be_alone_is_not_overtaken(hold, state):
    # Three processes beside each other: whoever starts another one is not waited for by it.
    first = hold("shared")
    waiting = Holder("alone", state)
    try:
        later = subprocess.run(
            [sys.executable, "-c", LATER], capture_output=True, text=True, timeout=TIMEOUT, check=True
        )
        assert f"pid {waiting.process.pid} " in later.stdout
        first.let_go()
        waiting.entered()
    finally:
        waiting.end()
    with Exclusive(5.0).held("test", False):  # and of one that was killed nothing stays
        pass


def test_what_a_holder_has_forked_does_not_hold_it(state):
    source = HOLDER.replace(
        "    print(",
        "    import os\n    if os.fork() == 0:\n        time.sleep(600)\n        os._exit(0)\n    print(",
    )
    holder = Holder("alone", state, source)
    try:
        holder.entered()
        os.kill(holder.process.pid, signal.SIGKILL)
        holder.process.wait(TIMEOUT)
        lock = Exclusive(5.0)
        with lock.held("test", True):
            os.killpg(holder.process.pid, 0)  # its child is there still
        lock.close()
    finally:
        os.killpg(holder.process.pid, signal.SIGKILL)
        holder.end()


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


def test_a_test_that_waited_in_vain_fails_and_says_why(inner, hold, state):
    hold("shared")
    result = inner(ALONE, "--compilepool-exclusive-timeout=0.5", environment={places.VARIABLE: str(state)})
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        ["*test_inner.py::test_alone is to run alone, and waited 0.5 s * the tests beside it to end: pid *"]
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
        pytest.raises(CannotEnter, match=f"the tests beside it to end: pid {holder.process.pid} \\("),
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


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_user(inner, state):
    state.mkdir(mode=0o700)
    (state / "exclusive-0.lock").touch(mode=0o600)
    os.chown(state / "exclusive-0.lock", 65534, 65534)
    _is_refused(
        inner,
        state,
        f"{state / 'exclusive-0.lock'} is not used: it is not a file that only this user may write",
    )
