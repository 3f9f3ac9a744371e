# SPDX-License-Identifier: Apache-2.0
"""Which cgroup directories bind this process: version 1, version 2, both at once, or none.

A limit binds wherever it stands between a process' own cgroup and the root, so all of these
directories are handed out and the caller takes the smallest figure.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple


# Named tuples: pytest's header needs them, so nearly every session makes them, and a dataclass takes five times as long.
class Level(NamedTuple):
    """One cgroup that this process is in.

    version: 1 or 2; path: its directory; name: that directory as the machine calls it (without `root`).
    """

    version: int
    path: Path
    name: str

    def read(self, file: str) -> str | None:
        """The text of one of its files, blanks at the ends taken off, or None where there is none."""
        return read_text(self.path / file)


class _Mount(NamedTuple):
    version: int
    controllers: frozenset[str]
    root: PurePosixPath  # which cgroup is mounted
    point: PurePosixPath  # where


def levels(controller: str, root: Path = Path("/")) -> list[Level]:
    """The cgroups that bind this process, each hierarchy from its own cgroup up to what is mounted.

    A directory may be missing, where a container does not show it: then its files read as None.
    controller: "cpu" or "memory", as version 1 names it; root: where /proc and the mounts are looked
    for (another folder in tests). Returns [] without cgroups; raises nothing.
    """
    own = _own_groups(root)
    mounts = _mounts(root)
    found: list[Level] = []
    # A hybrid host has both; a controller lives in one of them, and the other has no files for it.
    for version, key in ((2, ""), (1, controller)):
        group = own.get(key)
        here = [m for m in mounts if m.version == version and (version == 2 or controller in m.controllers)]
        if group is not None and here:
            found += _chain(version, group, here, root)
    return found


def read_text(path: Path) -> str | None:
    """A small file's text without blanks at the ends, or None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _own_groups(root: Path) -> dict[str, PurePosixPath]:
    """By controller, and "" for version 2: the lines are `4:cpu,cpuacct:/path` and `0::/path`."""
    groups: dict[str, PurePosixPath] = {}
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0":
            groups[""] = PurePosixPath(path)
        else:
            groups.update((name, PurePosixPath(path)) for name in names.split(",") if name)
    return groups


def _mounts(root: Path) -> list[_Mount]:
    found = []
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 1 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        found.append(
            _Mount(
                2 if kind[0] == "cgroup2" else 1,
                frozenset(kind[2].split(",")) if len(kind) > 2 else frozenset(),
                PurePosixPath(_unescape(fields[3])),
                PurePosixPath(_unescape(fields[4])),
            )
        )
    return found


def _unescape(text: str) -> str:
    """mountinfo writes a blank as \\040, and so on."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _chain(version: int, group: PurePosixPath, mounts: list[_Mount], root: Path) -> list[Level]:
    # The mount that holds our cgroup, the last one first: it hides what was mounted there before.
    for mount in reversed(mounts):
        below = _below(group, mount.root)
        if below is not None:
            return _upwards(version, mount, below, root)
    # A cgroup namespace, or a bind mount of another part of the tree: the path that /proc tells is not
    # below what is mounted. What a container sees mounted is its own cgroup or one above it.
    return _upwards(version, mounts[-1], PurePosixPath(), root)


def _below(group: PurePosixPath, mounted: PurePosixPath) -> PurePosixPath | None:
    try:
        below = group.relative_to(mounted)
    except ValueError:
        return None
    # "/../x" is how a namespace shows a cgroup outside of it.
    return None if ".." in below.parts else below


def _upwards(version: int, mount: _Mount, below: PurePosixPath, root: Path) -> list[Level]:
    found = []
    for part in (below, *below.parents):
        name = str(mount.point / part)
        found.append(Level(version, root / name.lstrip("/"), name))
    return found
