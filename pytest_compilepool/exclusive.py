# SPDX-License-Identifier: Apache-2.0
"""Tests that want the machine for themselves, and the lock that they hold alone while all others share it.

One file in the user's own folder, so that the workers of one run and sessions beside each other (`tox -p`) meet there. Its
first byte is a turnstile, its second the room, its third says that somebody waits. A test that wants to be alone keeps the
turnstile while it waits for the room to empty, so that nobody who comes later gets in before it; whoever comes out while
somebody waits lets him go first. The locks are the kernel's, on behalf of a process (POSIX): they end with it, what it has
forked does not have them, and Linux tells who has them. The price: a process that closes any descriptor of the file loses
them, which is why `lost` looks.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pytest_compilepool import places, proctree, sessionrecord
from pytest_compilepool.genuine import getpid, monotonic, sleep

try:
    import fcntl
except ImportError:  # Windows, where there is no pool of processes to share
    fcntl = None  # type: ignore[assignment]

NAME = "exclusive-{}.lock"
"""By the depth of a session: 0, or 1 where it was started by a test that holds the lock of depth 0, and so on."""

_TURNSTILE, _ROOM, _WAITING = 0, 1, 2
_LOOK_AGAIN = 0.02  # seconds: who blocks on a lock is woken by it, but cannot have a bound
_AFTER_YOU = 3 * _LOOK_AGAIN
_TELL = 5.0  # seconds of waiting after which somebody may wonder
_ROUNDS = 50  # in which a folder that others remove is made again
_LONGEST = 4096  # bytes of what a holder says of itself

_held_here: set[Path] = set()
"""Files whose locks this process has, through whichever session: a session within a session must not free them."""


class CannotEnter(Exception):
    """The lock could not be had. Its text says who has it."""


class NoLock(CannotEnter):
    """There is no lock to be had here at all, so nobody can be promised to be alone."""


class Exclusive:
    """The lock, for one process.

    timeout: seconds that it may be waited for without anybody getting in or out; environ: where the folder is told, see
    `places.own_folder`; tell: is given a sentence when somebody has waited for some seconds.
    Nothing is opened before `held`.
    """

    def __init__(
        self,
        timeout: float,
        environ: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._timeout = timeout
        # All workers of a run, whatever becomes of their environment.
        self._environ = dict(os.environ if environ is None else environ)
        self._tell = tell
        self._path: Path | None = None
        self._handle = -1
        self._identity = (0, 0)
        self._owner = getpid()
        self._holds: tuple[int, ...] = ()
        self._came_out = False
        self._in_vain: list[str] = []
        self._seen = False

    @contextlib.contextmanager
    def held(self, test: str, alone: bool) -> Iterator[None]:
        """Run a test with the machine to itself, or with others that share it.

        test: its node id. Raises CannotEnter and NoLock.
        """
        self._enter(test, alone)
        try:
            yield
        finally:
            if getpid() == self._owner:  # a fork that a test has made has no lock, and may come by here
                self._leave()

    @property
    def lost(self) -> str:
        """Inside `held`: why the lock is not held any more, as a sentence, or "" while it is.

        A test that closes a descriptor of the file, or removes it, lets others in.
        """
        if not self._holds or not self._seen or getpid() != self._owner:
            return ""
        if not self._is_there():
            return f"{self._path} was closed or removed while it was locked, so others may have run beside this test"
        lockers = self._lockers()
        if lockers is not None and self._owner not in lockers:
            return f"a descriptor of {self._path} was closed, which ended its lock, so others may have run beside this test"
        return ""

    def close(self) -> None:
        """Let go of the file; the last one removes it. Raises nothing."""
        if getpid() != self._owner or self._holds:
            return
        with contextlib.suppress(OSError):
            if self._is_mine():
                remove_if_free(self._handle, self._path)
        self._let_go()

    # -- coming and going ----------------------------------------------------------------------------

    def _enter(self, test: str, alone: bool) -> None:
        if fcntl is None:
            raise NoLock(f"{test} cannot have the machine to itself: this system has no locks of that kind")
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            wait = _Wait(self, test, alone)
            if self._came_out and self._somebody_waits():
                sleep(_AFTER_YOU)
            self._through(kind, wait)
            while not self._try(kind, _ROOM):
                wait.a_moment()
            if alone:
                self._say({"pid": self._owner, "test": test})
                self._holds = (_TURNSTILE, _ROOM)
            else:
                self._free(_TURNSTILE)
                self._holds = (_ROOM,)
            self._free(_WAITING)
            self._in_vain = []
            # Where /proc is of another pid namespace nobody can be told by his pid.
            self._seen = self._owner in (self._lockers() or ())
        except OSError as error:
            self._leave()
            raise NoLock(f"{test} cannot have the machine to itself: {error}") from None
        except BaseException:
            self._leave()
            raise
        assert self._path is not None
        _held_here.add(self._path)

    def _leave(self) -> None:
        if self._path is not None and self._holds:
            _held_here.discard(self._path)
            if _TURNSTILE in self._holds and self._is_mine():
                with contextlib.suppress(OSError):
                    os.ftruncate(self._handle, 0)  # nobody is alone any more
        self._holds, self._came_out = (), True
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._free(_ROOM, _TURNSTILE, _WAITING)

    def _through(self, kind: int, wait: _Wait) -> None:
        """The turnstile of the file that is there now: whoever closed last may just have removed the one that is open."""
        while True:
            self._open()
            while not self._try(kind, _TURNSTILE):
                wait.a_moment()
            if self._is_there():
                return
            self._let_go()

    # -- the file ------------------------------------------------------------------------------------

    def _open(self) -> None:
        """The file of our depth: the first that neither this process nor an ancestor of it holds."""
        if self._handle >= 0 and self._is_there():
            return
        self._let_go()
        above = proctree.ancestors(self._owner) | {self._owner}
        depth = 0
        while True:
            self._path = self._folder() / NAME.format(depth)
            if self._path not in _held_here:
                self._opened(self._path)
                # Whoever has started this session waits for it: nothing is to be waited for from him.
                if not above & set(self._lockers() or ()):
                    return
                self._let_go()
            depth += 1

    def _folder(self) -> Path:
        return places.own_folder(self._environ)

    def _opened(self, path: Path) -> None:
        for again in range(_ROUNDS, -1, -1):
            try:
                self._handle = places.shared_file(path)
            except places.NotThere:  # whoever was the last has just removed the folder
                if not again:
                    raise
                sleep(_LOOK_AGAIN)
                self._folder()
            else:
                self._identity = _identity(os.fstat(self._handle))
                return

    def _is_there(self) -> bool:
        """Whether the file that is open is the one that others would open."""
        if self._path is None or not self._is_mine():
            return False
        try:
            return _identity(os.lstat(self._path)) == self._identity
        except OSError:
            return False

    def _is_mine(self) -> bool:
        """Whether the descriptor is still the file's; a test may have closed it, and somebody else have the number now."""
        try:
            return self._handle >= 0 and _identity(os.fstat(self._handle)) == self._identity
        except OSError:
            return False

    def _let_go(self) -> None:
        """Of the file, and so of every lock on it."""
        if self._is_mine():
            os.close(self._handle)
        self._handle = -1

    # -- locks ---------------------------------------------------------------------------------------

    def _try(self, kind: int, byte: int) -> bool:
        return _lock(self._handle, kind, byte)

    def _free(self, *bytes_: int) -> None:
        for byte in bytes_:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, byte)

    def _somebody_waits(self) -> bool:
        """Whether another process has the third byte."""
        if not self._is_mine():
            return False
        if self._try(fcntl.LOCK_EX, _WAITING):
            self._free(_WAITING)
            return False
        return True

    def _say(self, who: dict[str, object]) -> None:
        """For those who wait."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps(who).encode()[:_LONGEST], 0)

    # -- who has it ----------------------------------------------------------------------------------

    def holders(self) -> list[str]:
        """Each process that has the lock, with its test where that is known."""
        assert self._path is not None
        tests: dict[int, str] = {}
        for record in sessionrecord.records(self._path.parent):
            with contextlib.suppress(OSError):
                account = sessionrecord.read_account(record)
                if account.running and account.owner.is_alive:
                    tests[account.owner.pid] = account.running
        told = self._told()
        if told is not None:
            tests[told[0]] = told[1]
        return [_described(pid, tests.get(pid, "")) for pid in self._lockers() or () if pid != self._owner]

    def _told(self) -> tuple[int, str] | None:
        with contextlib.suppress(OSError, ValueError):
            who = json.loads(os.pread(self._handle, _LONGEST, 0))
            if isinstance(who, dict) and type(who.get("pid")) is int and isinstance(who.get("test"), str):
                return who["pid"], who["test"]
        return None

    def _lockers(self) -> list[int] | None:
        """By what Linux tells of its locks (proc_locks(5)), without those who only wait; None elsewhere.

        Processes of another pid namespace have no pid here.
        """
        inode = str(self._identity[1])
        found = set()
        try:
            lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        for words in map(str.split, lines):
            # 1: POSIX ADVISORY WRITE 4711 fd:01:262165 0 0
            if len(words) == 8 and words[1] == "POSIX" and words[5].rpartition(":")[2] == inode:
                first = int(words[6]) if words[6].isdecimal() else 0
                if first <= _ROOM and words[4].isdecimal() and words[4] != "0":
                    found.add(int(words[4]))
        return sorted(found)


class _Wait:
    """The patience of one test. It ends where nobody has come or gone for `timeout`."""

    def __init__(self, lock: Exclusive, test: str, alone: bool) -> None:
        self._lock = lock
        self._test = test
        self._alone = alone
        self._began = self._since = monotonic()
        self._looked: float | None = None
        self._seen: list[str] = []
        self._told = False

    def a_moment(self) -> None:
        """Look again in a moment. Raises CannotEnter."""
        lock, now = self._lock, monotonic()
        lock._try(fcntl.LOCK_SH, _WAITING)
        if self._looked is None or now - self._looked > min(1.0, lock._timeout / 4):
            self._looked, holders = now, lock.holders()
            if holders != self._seen:
                self._seen, self._since = holders, now
            if holders and holders == lock._in_vain:  # the last test has waited for just these already
                raise CannotEnter(self._why_not())
        if now - self._since > lock._timeout:
            lock._in_vain = self._seen
            raise CannotEnter(self._why_not())
        if now - self._began > _TELL and not self._told:
            self._told = True
            lock._tell(f"{self._test} waits for {self._whom()}")
        sleep(_LOOK_AGAIN)

    def _whom(self) -> str:
        who = "; ".join(self._seen) or "nobody that can be seen from here"
        if self._alone:
            return f"the tests beside it to end; still running: {who}"
        return f"a test marked compilepool_exclusive, which runs alone, to end; holding the lock: {who}"

    def _why_not(self) -> str:
        waited = f"waited {self._lock._timeout:g} s (--compilepool-exclusive-timeout) for {self._whom()}"
        what = "is to run alone, and" if self._alone else "was not run: it"
        return f"{self._test} {what} {waited}"


def sweep(folder: Path) -> None:
    """Remove lock files that nobody holds: of sessions that were killed. folder: `places.own_folder()`. Raises nothing."""
    if fcntl is None:
        return
    for path in set(folder.glob(NAME.format("*"))) - _held_here:
        with contextlib.suppress(OSError):
            handle = places.shared_file(path)
            try:
                remove_if_free(handle, path)
            finally:
                os.close(handle)


def remove_if_free(handle: int, path: Path | None) -> None:
    """Remove the file, and its folder if nothing else is in it, where no process has a lock on it. Raises OSError."""
    # First the locks, then the look: between them somebody could remove it, and somebody else make it anew.
    free = all(_lock(handle, fcntl.LOCK_EX, byte) for byte in (_TURNSTILE, _ROOM, _WAITING))
    if free and path is not None and _identity(os.lstat(path)) == _identity(os.fstat(handle)):
        os.unlink(path)
        sessionrecord.remove_if_empty(path.parent)


def _lock(handle: int, kind: int, byte: int) -> bool:
    try:
        fcntl.lockf(handle, kind | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
        return False
    return True


def _identity(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino


def _described(pid: int, test: str) -> str:
    if test:
        return f"pid {pid} in {test}"
    return f"pid {pid} ({' '.join(proctree.command(pid))[:120] or 'gone meanwhile'})"
