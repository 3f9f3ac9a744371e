# SPDX-License-Identifier: Apache-2.0
"""Cache folders that a test left behind, and writes that went past the fresh folders it was given.

What another process of the same user does in the same folders at the same time cannot be told from what the
test did, so nothing is judged where such are to be expected: in a run of several xdist workers.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pytest_compilepool import torch_compat
from pytest_compilepool.leaks.base import MISSING, Change, LeakChecker
from pytest_compilepool.records import Leak, Snapshot

_PREFIX = "torchinductor_"  # how torch, and those who follow it, name a cache folder in the temporary folder

_ALWAYS_SHARED = frozenset({"precompiled_headers"})
"""What torch keeps below its default folder wherever the cache is, read from its source: made by the first C++ compile of a
machine, whose headers it then is for everybody."""

_TEMPORARY = "temporary"
_OUTSIDE = "outside"
_ROOT = "root"
_NAMED = "named"


class CacheChecker(LeakChecker):
    """Two kinds of leak; writing into the normal, shared cache folder is none.

    key: ("temporary", path): a folder `torchinductor_*` of this user in the temporary folder that this process
    itself named: a variable points to it now, and did not before. Any other such folder may be that of another
    process of this user, and is not told. key: ("outside", path): an entry that appeared in one of the folders
    given to `watch` while fresh ones were in effect. key: ("root", variable), value: the path in effect.
    key: ("named", variable), value: the path, where the variable itself is set.

    alone: no other process of this user is expected to compile meanwhile; None: unless this is one of
    several xdist workers.
    """

    name: ClassVar[str] = "caches"
    settles: ClassVar[bool] = False

    def __init__(self, alone: bool | None = None) -> None:
        self._alone = not _has_fellow_workers() if alone is None else alone
        self._watched: dict[Path, set[str]] = {}
        self._seen_outside: set[Path] = set()

    def watch(self, roots: Sequence[Path]) -> None:
        """Begin to look for new top-level entries in these folders.

        roots: the folders in effect before the fresh ones were; they need not exist. Replaces the folders
        watched before.
        """
        self.unwatch()
        self._watched = {root: _names(root) for root in roots}

    def unwatch(self) -> None:
        """End it: what appeared until now is still reported once, what appears from now on is not."""
        self._seen_outside = {path for path in self._outside() if os.path.lexists(path)}
        self._watched = {}

    def measure(self) -> Snapshot | None:
        if not self._alone:
            return None
        roots = torch_compat.cache_roots()
        found: Snapshot = {(_ROOT, name): path for name, path in roots.items()}
        found.update(((_NAMED, name), path) for name, path in roots.items() if os.environ.get(name))
        found.update(((_TEMPORARY, str(path)), None) for path in _temporary_folders())
        found.update(((_OUTSIDE, str(path)), None) for path in self._outside() if os.path.lexists(path))
        return found

    def _outside(self) -> Iterator[Path]:
        yield from self._seen_outside
        for root, names in self._watched.items():
            yield from (root / name for name in sorted(_names(root) - names - _ALWAYS_SHARED))

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        in_effect = {os.path.realpath(path) for key, path in before.items() if _kind(key) == _ROOT}
        named = {os.path.realpath(path) for key, path in after.items() if _kind(key) == _NAMED} - in_effect
        for key in after:
            own = _kind(key) == _TEMPORARY and os.path.realpath(_path(key)) in named
            # An entry of a watched folder may be that folder in effect itself.
            outside = _kind(key) == _OUTSIDE and os.path.realpath(_path(key)) not in in_effect
            if key not in before and (own or outside):
                yield key, MISSING, after[key]

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        path = _path(key)
        if _kind(key) == _TEMPORARY:
            after, who = f"cache folder left behind: {path}", ""
        else:
            after = f"{path}: written into the outer cache folder though fresh ones were in effect"
            who = "a process or a module that keeps the folders it started with, such as an older sidecar"
        return Leak(self.name, os.path.basename(path), "not there", after, who, handle=key)

    def restore(self, leaks: Sequence[Leak]) -> None:
        """Remove a folder that this process named; what lies in a shared cache stays, and is not told again.

        Another process may have put it there for itself, and a cache that loses entries while somebody
        compiles breaks that compile. Links are removed, never followed.
        """
        for leak in leaks:
            path = Path(_path(leak.handle))
            if _kind(leak.handle) == _TEMPORARY:
                shutil.rmtree(path, ignore_errors=True)
                continue
            self._seen_outside.discard(path)
            for root, names in self._watched.items():
                if path.parent == root:
                    names.add(path.name)

    def note(self, leak: Leak) -> str:
        if leak.handle is None or _kind(leak.handle) == _TEMPORARY:
            return ""
        return "it stays: others may use that cache, too"


def _has_fellow_workers() -> bool:
    count = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    return count.isdigit() and int(count) > 1


def _kind(key: Hashable) -> str:
    assert isinstance(key, tuple)
    return str(key[0])


def _path(key: Hashable) -> str:
    assert isinstance(key, tuple)
    return str(key[1])


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _temporary_folders() -> Iterable[Path]:
    folder = Path(tempfile.gettempdir())
    own = os.getuid() if hasattr(os, "getuid") else None
    for name in _names(folder):
        if name.startswith(_PREFIX):
            path = folder / name
            try:
                info = path.lstat()
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode) and own in (None, info.st_uid):
                yield path
