# SPDX-License-Identifier: Apache-2.0
"""Files that only this user may touch: records that outlive a process.

Whoever shares the machine must not be able to plant, read or redirect them: the folder is the user's own with mode
0700, files are made anew with 0600, never through a symbolic link, and what is read back is first looked at.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "COMPILEPOOL_STATE"
"""Environment variable: a folder to use instead of the usual one."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_ROUNDS = 100  # in which a folder that others remove is made again
_LARGEST = 64 << 20  # bytes of a file that is read back


class PlaceError(OSError):
    """A folder or file that cannot be used, or not safely. Its text is a sentence with the path and the reason."""


class NotThere(PlaceError):
    """A file that is not there, or a folder on the way to it."""


def own_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder for what this user's sessions leave for later ones; made where it is not there. Raises PlaceError.

    The one that COMPILEPOOL_STATE names; else `compilepool` in XDG_RUNTIME_DIR, where that is private, in
    XDG_STATE_HOME, or in ~/.local/state. environ: `os.environ` if None.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(VARIABLE, "").strip()
    if named:
        if not os.path.isabs(named):
            raise PlaceError(f"{VARIABLE}: {named!r} is not allowed; allowed: an absolute path")
        return _made(Path(named), VARIABLE)
    runtime = _runtime_folder(environ)
    if runtime is not None:
        return _made(runtime / "compilepool", "XDG_RUNTIME_DIR")
    state = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return _made(Path(state) / "compilepool", "XDG_STATE_HOME")
    # Not Path.expanduser(): that raises where nobody knows the home folder.
    home = environ.get("HOME") or os.path.expanduser("~")
    return _made(Path(home, ".local", "state", "compilepool"), "the home folder")


def _made(folder: Path, origin: str) -> Path:
    if not folder.is_absolute():
        raise PlaceError(
            f"{origin} is not known, so there is no place for records; set {VARIABLE} to a folder"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        wrong = _what_is_wrong_with(_made_and_seen(folder))
    except OSError as error:
        raise PlaceError(
            f"{folder} (from {origin}) cannot be made: {error.strerror}; set {VARIABLE} to another folder"
        ) from None
    if wrong:
        raise PlaceError(f"{folder} (from {origin}) is not used: {wrong}; set {VARIABLE} to another folder")
    return folder


def _made_and_seen(folder: Path) -> os.stat_result:
    """Raises OSError where it cannot be made. Somebody may remove it again at once, since nothing of his was left in it."""
    for again in range(_ROUNDS, -1, -1):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            return folder.lstat()
        except FileNotFoundError:
            if not again:
                raise
    raise AssertionError("the last round returns or raises")


def _what_is_wrong_with(found: os.stat_result) -> str:
    """Why a folder is not this user's alone; "" where it is."""
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}, not to {os.geteuid()}"
    mode = stat.S_IMODE(found.st_mode)
    return f"others may enter it, for its mode is {mode:04o} and not 0700" if mode & 0o077 else ""


def _runtime_folder(environ: Mapping[str, str]) -> Path | None:
    """What systemd and others make for each user, if it is as private as it should be."""
    named = environ.get("XDG_RUNTIME_DIR", "")
    try:
        return Path(named) if os.path.isabs(named) and not _what_is_wrong_with(os.lstat(named)) else None
    except OSError:
        return None


def remove_if_empty(folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """The last one leaves no empty folder of ours; one that COMPILEPOOL_STATE names stays. Raises OSError.

    environ: `os.environ` if None.
    """
    named = (os.environ if environ is None else environ).get(VARIABLE, "").strip()
    if not named or Path(named) != folder:
        folder.rmdir()


def create(path: Path) -> int:
    """A new file with mode 0600, open for appending; its folder is made with 0700. Returns the descriptor.

    Raises PlaceError, also where such a file is there.
    """
    for again in (True, True, False):
        try:
            for folder in (path.parent.parent, path.parent):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        except FileNotFoundError as error:
            # Somebody has just removed the folder, since nothing of his was left in it.
            if not again:
                raise PlaceError(f"{path} cannot be made: {error.strerror}") from None
        except OSError as error:
            raise PlaceError(f"{path} cannot be made: {error.strerror}") from None
    raise AssertionError("the last round returns or raises")


def shared_file(path: Path) -> int:
    """That file, made with mode 0600 where it is not there, open for reading and writing, such as for locks on it.

    Returns the descriptor; raises PlaceError, also for what is not this user's own.
    """
    return _opened(path, os.O_RDWR | os.O_CREAT)


def append_to(path: Path) -> int:
    """That file, if it is this user's own, open for appending. Returns the descriptor; raises PlaceError."""
    return _opened(path, os.O_WRONLY | os.O_APPEND)


def read(path: Path) -> bytes:
    """What is in a file of this user's own. Raises PlaceError: a link, another user's, no file, larger than 64 MiB."""
    handle = _opened(path, os.O_RDONLY)
    with open(handle, "rb") as file:
        if os.fstat(handle).st_size > _LARGEST:
            raise PlaceError(f"{path} is not read: it is larger than {_LARGEST >> 20} MiB")
        return file.read(_LARGEST)


def _opened(path: Path, flags: int) -> int:
    try:
        # Not waiting for a pipe that somebody has put there.
        handle = os.open(path, flags | _FLAGS | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        raise NotThere(f"{path} is not used: there is no such file") from None
    except OSError as error:
        why = "it is a symbolic link" if os.path.islink(path) else error.strerror
        raise PlaceError(f"{path} is not used: {why}") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(handle)
        raise PlaceError(f"{path} is not used: it is not a file that only this user may write")
    return handle
