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

from pytest_compilepool import bytelocks, places, proctree, sessionrecord
from pytest_compilepool.genuine import Genuine

NAME = "exclusive-{}.lock"
"""By the depth of a session: 0, or 1 where it was started by a test that holds the lock of depth 0, and so on."""

_TURNSTILE, _ROOM, _WAITING, _PROBE = 0, 1, 2, 3
_LOOK_AGAIN = 0.02  # seconds: who blocks on a lock is woken by it, but cannot have a bound
_AFTER_YOU = 3 * _LOOK_AGAIN
_TELL = 5.0  # seconds of waiting after which somebody may wonder
_DEEPEST = 20  # sessions below each other
_ROUNDS = 50  # in which a folder or file that others remove is made again
_LOOKS = 3  # at /proc/locks, which the kernel writes page by page: a line may be missing from one of them
_AGAIN_IN_VAIN = 10.0  # seconds that are waited for those for whom a test before has waited in vain
_LONGEST = 4096  # bytes of what a holder says of itself
_LONGEST_TEST = 500

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
        self._device = ""
        self._owner = Genuine.getpid()
        self._holds: tuple[int, ...] = ()
        self._came_out = False
        self._in_vain: list[str] = []

    @contextlib.contextmanager
    def held(self, test: str, alone: bool) -> Iterator[None]:
        """Run a test with the machine to itself, or with others that share it.

        test: its node id. Raises CannotEnter and NoLock. A fork of the session, and a test within a test, take no part.
        """
        if Genuine.getpid() != self._owner or self._holds:
            yield
            return
        self._enter(test, alone)
        try:
            yield
        finally:
            if (
                Genuine.getpid() == self._owner
            ):  # a fork that a test has made has no lock, and may come by here
                self._leave()

    @property
    def lost(self) -> str:
        """Inside `held`: why the lock is not held any more, as a sentence, or "" while it is.

        A test that closes a descriptor of the file, or removes it, lets others in.
        """
        if not self._holds or Genuine.getpid() != self._owner:
            return ""
        beside = "so tests may have run side by side of which one is to run alone"
        if not self._is_there():
            return f"{self._path} was closed or removed while it was locked, {beside}"
        # Where we could not see our own lock when we had it we cannot see that it is gone.
        if self._device and not any(self._owner in self._lockers() for _ in range(_LOOKS)):
            return f"a descriptor of {self._path} was closed, which ended its lock, {beside}"
        return ""

    def close(self) -> None:
        """Let go of the file; the last one removes it. Raises nothing."""
        if Genuine.getpid() != self._owner or self._holds:
            return
        with contextlib.suppress(OSError):
            if self._is_mine():
                remove_if_free(self._handle, self._path, self._environ)
        self._let_go()

    # -- coming and going ----------------------------------------------------------------------------

    def _enter(self, test: str, alone: bool) -> None:
        if not bytelocks.THERE_ARE:
            raise NoLock(f"{test} cannot have the machine to itself: this system has no locks of that kind")
        kind = bytelocks.ALONE if alone else bytelocks.SHARED
        try:
            wait = _Wait(self, test, alone)
            if self._came_out and self._somebody_waits():
                Genuine.sleep(_AFTER_YOU)
            for again in range(_ROUNDS, -1, -1):
                self._open()
                while not self._try(kind, _TURNSTILE):
                    wait.a_moment()
                while not self._try(kind, _ROOM):
                    wait.a_moment()
                if self._is_there():
                    break
                # Whoever closed last has just removed the one that was open.
                self._let_go()
                if not again:
                    raise OSError(f"{self._path} is removed again and again")
                Genuine.sleep(_LOOK_AGAIN / 10)
            if alone:
                self._say({"pid": self._owner, "test": test[:_LONGEST_TEST]})
                self._holds = (_TURNSTILE, _ROOM)
            else:
                self._free(_TURNSTILE)
                self._holds = (_ROOM,)
            self._free(_WAITING)
            self._in_vain = []
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

    # -- the file ------------------------------------------------------------------------------------

    def _open(self) -> None:
        """The file of our depth: the first that neither this process nor an ancestor of it holds."""
        if self._handle >= 0 and self._is_there():
            return
        self._let_go()
        above = proctree.ancestors(self._owner) | {self._owner}
        for depth in range(_DEEPEST):
            self._path = self._folder() / NAME.format(depth)
            if self._path not in _held_here:
                self._opened(self._path)
                # Whoever has started this session waits for it: nothing is to be waited for from him.
                if not above & set(self._lockers()):
                    return
                self._let_go()
        raise OSError(f"there are {_DEEPEST} sessions above this one that have such a lock")

    def _folder(self) -> Path:
        return places.own_folder(self._environ)

    def _opened(self, path: Path) -> None:
        for again in range(_ROUNDS, -1, -1):
            try:
                self._handle = places.shared_file(path)
            except places.NotThere:  # whoever was the last has just removed the folder
                if not again:
                    raise
                Genuine.sleep(_LOOK_AGAIN)
                self._folder()
            else:
                self._identity = _identity(os.fstat(self._handle))
                self._device = self._seen_device()
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
        return bytelocks.take(self._handle, kind, byte)

    def _free(self, *bytes_: int) -> None:
        bytelocks.free(self._handle, *bytes_)

    def _somebody_waits(self) -> bool:
        """Whether another process has the third byte."""
        if not self._is_mine():
            return False
        if self._try(bytelocks.ALONE, _WAITING):
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
        """Each process that has the lock, with its test where that is known. Where nobody can be seen, who says so."""
        assert self._path is not None
        told = self._told()
        pids = self._lockers() if self._device else [told[0]] if told else []
        tests: dict[int, str] = {}
        for record in sessionrecord.records(self._path.parent):
            pid = record.name.partition("-")[0]
            if pid.isdecimal() and int(pid) in pids:  # others may be long, and many
                with contextlib.suppress(OSError):
                    account = sessionrecord.read_account(record)
                    if account.running and account.owner.is_alive:
                        tests[account.owner.pid] = account.running
        if told is not None:
            tests[told[0]] = told[1]
        return [_described(pid, tests.get(pid, "")) for pid in pids if pid != self._owner]

    def _told(self) -> tuple[int, str] | None:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            who = json.loads(os.pread(self._handle, _LONGEST, 0))
            if isinstance(who, dict) and type(who.get("pid")) is int and isinstance(who.get("test"), str):
                return who["pid"], who["test"]
        return None

    def _lockers(self) -> list[int]:
        """Who has the lock, without those who only wait. Processes of another pid namespace have no pid here."""
        return sorted(
            {
                pid
                for _ in range(_LOOKS)
                for pid, device, first in self._lines()
                if device == self._device and first <= _ROOM
            }
        )

    def _seen_device(self) -> str:
        """As the kernel writes it in our own line, which on some file systems is not what stat says; "" if there is none."""
        if not self._try(bytelocks.SHARED, _PROBE):
            return ""
        try:
            for _ in range(_LOOKS):
                for pid, device, first in self._lines():
                    if pid == self._owner and first == _PROBE:
                        return device
            return ""
        finally:
            self._free(_PROBE)

    def _lines(self) -> list[tuple[int, str, int]]:
        return bytelocks.on_inode(self._identity[1])


class _Wait:
    """The patience of one test. It ends where nobody has come or gone for `timeout`."""

    def __init__(self, lock: Exclusive, test: str, alone: bool) -> None:
        self._lock = lock
        self._test = test
        self._alone = alone
        self._began = self._since = Genuine.monotonic()
        self._limit = lock._timeout
        self._looked: float | None = None
        self._seen: list[str] = []
        self._told = False

    def a_moment(self) -> None:
        """Look again in a moment. Raises CannotEnter."""
        lock, now = self._lock, Genuine.monotonic()
        lock._try(bytelocks.SHARED, _WAITING)
        if self._looked is None or now - self._looked > min(1.0, self._limit / 4):
            self._looked, holders = now, lock.holders()
            if holders != self._seen:
                self._seen, self._since, self._limit = holders, now, lock._timeout
                if holders == lock._in_vain:
                    self._limit = min(self._limit, _AGAIN_IN_VAIN)
        if now - self._since > self._limit:
            lock._in_vain = self._seen
            raise CannotEnter(self._why_not())
        if now - self._began > _TELL and not self._told:
            self._told = True
            lock._tell(f"{self._test} waits for {self._whom()}")
        Genuine.sleep(_LOOK_AGAIN)

    def _whom(self) -> str:
        who = "; ".join(self._seen) or "nobody that can be seen from here"
        if self._alone:
            return f"the tests beside it to end: {who}"
        return f"a test marked compilepool_exclusive, which runs alone, to end: {who}"

    def _why_not(self) -> str:
        option = "--compilepool-exclusive-timeout"
        if self._limit < self._lock._timeout:
            option = f"{option} is {self._lock._timeout:g}, and a test before this one has waited for the same in vain"
        what = "is to run alone, and" if self._alone else "was not run: it"
        return f"{self._test} {what} waited {self._limit:g} s ({option}) for {self._whom()}"


def sweep(folder: Path) -> None:
    """Remove lock files that nobody holds: of sessions that were killed. folder: `places.own_folder()`. Raises nothing."""
    if not bytelocks.THERE_ARE:
        return
    for path in set(folder.glob(NAME.format("*"))) - _held_here:
        with contextlib.suppress(OSError):
            handle = places.shared_file(path)
            try:
                remove_if_free(handle, path)
            finally:
                os.close(handle)


def remove_if_free(handle: int, path: Path | None, environ: Mapping[str, str] | None = None) -> None:
    """Remove the file, and its folder if nothing else is in it, where no process has a lock on it. Raises OSError.

    environ: see `places.own_folder`.
    """
    # First the locks, then the look: between them somebody could remove it, and somebody else make it anew.
    free = all(bytelocks.take(handle, bytelocks.ALONE, byte) for byte in (_TURNSTILE, _ROOM, _WAITING))
    if free and path is not None and _identity(os.lstat(path)) == _identity(os.fstat(handle)):
        os.unlink(path)
        sessionrecord.remove_if_empty(path.parent, environ)


def _identity(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino


def _described(pid: int, test: str) -> str:
    if test:
        return f"pid {pid} in {test}"
    return f"pid {pid} ({' '.join(' '.join(proctree.command(pid)).split())[:120] or 'gone meanwhile'})"
