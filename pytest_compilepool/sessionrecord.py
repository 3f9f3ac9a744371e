# SPDX-License-Identifier: Apache-2.0
"""What one process of a test session is doing, in a file that outlives it: JSON lines, flushed one by one.

The first line says whose it is; then a line when a test begins and one when it has ended. A process that is killed loses
nothing but the line that it was writing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_compilepool import places, proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.records import ProcessKey

SCHEMA = 1
FOLDER = "sessions"
SUFFIX = ".jsonl"
_LONGEST = 4096  # characters of a text that is written or believed
_LONGEST_TEXT = 100_000
_LARGEST = 1 << 20  # bytes of a record; then it begins anew


@dataclass(frozen=True)
class Owner:
    """The process that a record is about.

    pid, started: as `ProcessKey` has them; boot: of which start of the machine; tag: value of `proctree.TAG` in what it has
    started; mark: name of a memory file that its forks hold; host, namespace: of which machine, and in which pids are
    counted there; root: pytest's root folder; worker, run: xdist's name of it and of the whole run, or ""; temporary: the
    folder in which it makes folders, named as `folder_prefix` says; at: when, seconds since 1970.
    """

    pid: int
    started: float
    boot: str
    tag: str = ""
    mark: str = ""
    host: str = ""
    namespace: str = ""
    root: str = ""
    worker: str = ""
    run: str = ""
    temporary: str = ""
    at: float = 0.0

    @property
    def key(self) -> ProcessKey:
        return ProcessKey(self.pid, self.started)

    @property
    def is_foreign(self) -> bool:
        """Whether it is of another machine or container, which shares the folder: what became of it cannot be seen here."""
        if self.boot == boot_id():
            return self.namespace != pid_namespace()
        return self.host != os.uname().nodename  # the same machine, started anew, has the same name

    @property
    def is_alive(self) -> bool:
        """Whether that very process still runs: pid, start time, and the same start of the machine."""
        return self.boot == boot_id() and not self.is_foreign and proctree.alive(self.key)

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that it runs no more."""
        return not self.is_foreign and not self.is_alive


@dataclass
class Account:
    """What a record says.

    running: the test that has begun and not ended, or ""; attempt: of it; timeout: what its pool was doing when its time was
    up, or ""; ended: how many tests have; finished: whether the session has ended as it should; died: what was found at the
    process's end by whoever looked after it; torn: lines that could not be read.
    """

    owner: Owner
    running: str = ""
    attempt: int = 1
    ended: int = 0
    timeout: str = ""
    finished: bool = False
    died: dict[str, Any] = field(default_factory=dict)
    torn: int = 0


class SessionRecord:
    """The record of this process. Raises `places.PlaceError` where there is no place for it."""

    def __init__(self, owner: Owner, folder: Path) -> None:
        self.owner = owner
        self.path = folder / FOLDER / f"{owner.pid}-{owner.tag.rpartition('-')[2][:16]}{SUFFIX}"
        self._handle = places.create(self.path)
        self._identity = _identity(self._handle)
        self._closed = False
        self._written = self._ended = 0
        try:
            self._put({"schema": SCHEMA, "owner": asdict(owner)})
        except OSError as error:
            self.close()
            raise places.PlaceError(f"{self.path} cannot be written: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    def began(self, test: str, attempt: int) -> None:
        """A test begins. test: its node id; attempt: 1, or more where it is run again."""
        self.write({"began": test[:_LONGEST], "attempt": attempt, "at": round(time.time(), 3)})

    def ended(self, test: str, attempt: int, outcome: str) -> None:
        """It has ended. outcome: "passed", "failed" or "skipped"."""
        self.write({"ended": test[:_LONGEST], "attempt": attempt, "outcome": outcome})
        self._ended += 1

    def timed_out(self, text: str) -> None:
        """The time of a test is up. text: what its pool was doing."""
        self.write({"timeout": text[:_LONGEST_TEXT]})

    def write(self, line: dict[str, Any]) -> None:
        """One line, in one write. A disk that is full is no reason for a test to fail."""
        if self._closed or not self._is_mine():
            return
        with contextlib.suppress(OSError):
            if self._written > _LARGEST:
                # Of tests that have ended only the number is of interest.
                os.ftruncate(self._handle, 0)
                self._written = 0
                self._put({"schema": SCHEMA, "owner": asdict(self.owner), "before": self._ended})
            self._put(line)

    def _put(self, line: dict[str, Any]) -> None:
        self._written += os.write(self._handle, json.dumps(line).encode() + b"\n")

    def _is_mine(self) -> bool:
        """Whether the descriptor is still the file's; a test may have closed it, and somebody else have the number now."""
        try:
            seen = os.fstat(self._handle)
        except OSError:
            seen = None
        if seen is not None and (seen.st_dev, seen.st_ino) == self._identity:
            return True
        try:
            self._handle = places.append_to(self.path)
        except OSError:  # somebody has removed it
            self._closed = True
            return False
        self._identity = _identity(self._handle)
        return True

    @property
    def handle(self) -> int | None:
        """The descriptor of the file, None once it is closed."""
        return None if self._closed else self._handle

    def close(self, keep: bool = False) -> None:
        """The session has ended as it should. keep: leave the file."""
        if self._closed:
            return
        if self._is_mine():
            with contextlib.suppress(OSError):
                os.close(self._handle)
        self._closed = True
        if not keep:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
                remove_if_empty(self.path.parent.parent)


def _identity(handle: int) -> tuple[int, int]:
    seen = os.fstat(handle)
    return seen.st_dev, seen.st_ino


def read_account(path: Path) -> Account:
    """What is in a record. Raises `places.PlaceError`, also for a file that begins with no owner."""
    lines = places.read(path).splitlines()
    owner = parsed_owner((_parsed(lines[0]) or {}).get("owner")) if lines else None
    if owner is None:
        raise places.PlaceError(f"{path} is not used: it does not begin as the record of a session does")
    account = Account(owner)
    before = (_parsed(lines[0]) or {}).get("before")
    account.ended = before if type(before) is int else 0
    for line in map(_parsed, lines[1:]):
        if line is None:
            account.torn += 1
        elif isinstance(line.get("began"), str):
            account.running = line["began"][:_LONGEST]
            attempt = line.get("attempt")
            account.attempt = attempt if type(attempt) is int else 1
        elif isinstance(line.get("ended"), str):
            account.running, account.timeout, account.ended = "", "", account.ended + 1
        elif isinstance(line.get("timeout"), str):
            account.timeout = line["timeout"][:_LONGEST_TEXT]
        elif line.get("finished") is True:
            account.finished = True
        elif isinstance(line.get("died"), dict):
            account.died = line["died"]
    return account


def records(folder: Path) -> list[Path]:
    """The records of all sessions of this user that have not ended as they should, or are under way."""
    try:
        return sorted(path for path in (folder / FOLDER).iterdir() if path.suffix == SUFFIX)
    except OSError:
        return []


def remove_if_empty(folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """The last one leaves no empty folders. folder: the one that holds that of the records. Raises OSError otherwise.

    environ: see `places.remove_if_empty`.
    """
    with contextlib.suppress(FileNotFoundError):
        (folder / FOLDER).rmdir()
    places.remove_if_empty(folder, environ)


def prune(folder: Path, keep: int = 100) -> None:
    """Forget the oldest of those that are many: records of sessions that died, and that nobody has asked for."""
    paths = records(folder)
    if len(paths) <= keep:
        return
    for path in sorted(paths, key=_written)[:-keep]:
        with contextlib.suppress(OSError):
            if read_account(path).owner.is_gone:
                path.unlink()


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def boot_id() -> str:
    """Which start of the machine this is; "" where that cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """In which pids are counted; "" where that cannot be told."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def folder_prefix(word: str = "", pid: int = 0) -> str:
    """How the names of temporary folders begin that `compilepool reap` may find: `compilepool-PID-[WORD-]MARK-`.

    word: what the folder is for; pid: of whom, 0 for this process.
    """
    parts = ["compilepool", str(pid or Genuine.getpid()), word, folder_mark(boot_id(), pid_namespace())]
    return "".join(f"{part}-" for part in parts if part)


def folder_mark(boot: str, namespace: str) -> str:
    """Eight hexadecimal digits that say where a pid in the name of a folder was counted: /tmp may be shared.

    boot, namespace: as `Owner` has them.
    """
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:8]


def note_death(path: Path, died: dict[str, Any]) -> None:
    """Write down how it ended, after its last line, which may be torn. Raises `places.PlaceError`."""
    handle = places.append_to(path)
    try:
        os.write(handle, b"\n" + json.dumps({"died": died}).encode() + b"\n")
    finally:
        os.close(handle)


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line:
        return {}
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parsed_owner(told: object) -> Owner | None:
    """From plain values, if each field is of the kind that it must be; what is not known is passed over."""
    if not isinstance(told, dict):
        return None
    names = ("boot", "tag", "mark", "host", "namespace", "root", "worker", "run", "temporary")
    texts = {name: told.get(name, "") for name in names}
    if not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts.values()):
        return None
    pid, numbers = told.get("pid"), [told.get("started"), told.get("at", 0.0)]
    if type(pid) is not int or not 1 < pid < 1 << 31:
        return None
    if not all(
        isinstance(one, (int, float)) and type(one) is not bool and 0 <= one < 1e12 for one in numbers
    ):
        return None
    return Owner(pid, float(numbers[0]), at=float(numbers[1]), **texts)
