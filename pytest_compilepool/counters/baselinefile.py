# SPDX-License-Identifier: Apache-2.0
"""The checked-in file of baselines: read with suspicion, changed one entry at a time."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_compilepool.counters.errors import HIDDEN, BadBaseline

__tracebackhide__ = HIDDEN

SCHEMA = 1
LOCK = 30.0  # seconds that other processes of the run may take to write theirs

Baselines = dict[str, dict[str, dict[str, int]]]
"""name of a baseline -> key of a machine -> name of a counter -> by how much it moved"""


def read_file(path: Path) -> Baselines:
    """All baselines of a file; empty where there is none. Raises BadBaseline."""
    try:
        if path.exists() and not path.is_file():
            raise BadBaseline(f"{path}: is no regular file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadBaseline(f"{path}: cannot be read: {_words(error)}") from None
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadBaseline(f"{path}:{error.lineno}: not JSON, or cut off: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits, which Python does not take
        raise BadBaseline(f"{path}: not what pytest-compilepool writes: {error}") from None
    except RecursionError:
        raise BadBaseline(f"{path}: not what pytest-compilepool writes: nested too deeply") from None
    except _Twice as error:
        line = _line(text, error.key, last=True)
        raise BadBaseline(f"{path}:{line}: {error.key!r} stands there twice") from None
    return _checked(path, text, found)


def write_entry(path: Path, name: str, key: str, counters: Mapping[str, int], timeout: float = LOCK) -> bool:
    """Put one entry into a file, which is made if need be; all others stay. timeout: seconds for the lock.

    Returns whether the file was changed. Raises BadBaseline; the file is then as it was.
    """
    # A link leads to the file that is meant.
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent, timeout):
            baselines = read_file(path)
            if baselines.get(name, {}).get(key) == counters:
                return False
            baselines.setdefault(name, {})[key] = dict(counters)
            _replace(path, as_text(baselines))
            return True
    except OSError as error:
        raise BadBaseline(f"{path}: cannot be written: {_words(error)}") from None


def as_text(baselines: Baselines) -> str:
    """The file: sorted, one counter a line."""
    return json.dumps({"baselines": baselines, "schema": SCHEMA}, indent=2, sort_keys=True) + "\n"


def _replace(path: Path, text: str) -> None:
    """Write a file so that whoever reads it sees the old or the new one, never a half."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


@contextlib.contextmanager
def _locked(folder: Path, timeout: float) -> Iterator[None]:
    """Alone in a folder, among all processes that ask. The lock ends with its process, and leaves no file."""
    try:
        import fcntl
    except ImportError:  # Windows, where no pool can be shared out to several processes either
        yield
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BadBaseline(
                        f"{folder}: another process has held the lock on this folder for {timeout:g} s; "
                        "nothing was written"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


class _Twice(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice: a merge may leave both."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _checked(path: Path, text: str, found: Any) -> Baselines:
    """What was read, if it is what this version writes."""
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        raise BadBaseline(
            f"{path}:{_line(text, 'schema')}: schema {schema!r} is not known; allowed: {SCHEMA} (a later "
            "pytest-compilepool may have written this file)"
        )
    baselines = _object(path, text, found, "baselines")
    for name in baselines:
        entries = _object(path, text, baselines, name)
        for key in entries:
            for counter, number in _object(path, text, entries, key, name).items():
                if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                    raise BadBaseline(
                        f"{path}:{_line(text, name, key, counter)}: {counter}: {number!r} is not allowed; "
                        "allowed: a whole number from 0"
                    )
    return baselines


def _object(path: Path, text: str, found: dict[str, Any], key: str, *outer: str) -> dict[str, Any]:
    value = found.get(key)
    if isinstance(value, dict):
        return value
    raise BadBaseline(
        f"{path}:{_line(text, *outer, key)}: {key}: {value!r} is not allowed; allowed: a JSON object"
    )


def _line(text: str, *keys: str, last: bool = False) -> int:
    """The line in which a key stands, counted from 1. keys: the ones around it first; last: its last place."""
    at = 0
    for key in keys:
        quoted = json.dumps(key)
        at = max(at, text.rfind(quoted) if last else text.find(quoted, at))
    return text.count("\n", 0, at) + 1


def _words(error: Exception) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
