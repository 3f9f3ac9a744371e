# SPDX-License-Identifier: Apache-2.0
"""What a file descriptor is called in a leak's key: the same in the next run."""

from __future__ import annotations

import pytest

from pytest_compilepool.leaks.fds import stable_target


@pytest.mark.parametrize(
    ("target", "stable"),
    [
        ("pipe:[123]", "pipe"),
        ("socket:[123]", "socket"),
        ("anon_inode:[eventpoll]", "eventpoll"),
        ("anon_inode:inotify", "inotify"),
        ("/tmp/a b (deleted)", "/tmp/a b"),
        ("/dev/null", "/dev/null"),
    ],
)
def test_stable_target(target: str, stable: str) -> None:
    assert stable_target(target) == stable


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        ("/tmp/tmp7eypywih/log [x].txt", "/tmp/tmp*/log [[]x].txt"),
        (
            "/tmp/pytest-of-me/pytest-12/popen-gw0/test_a0/log",
            "/tmp/pytest-of-me/pytest-*/popen-gw*/test_a0/log",
        ),
        ("/var/log/[x].txt", "/var/log/[x].txt"),
        ("pipe:[123]", "pipe"),
    ],
)
def test_a_key_fits_the_next_run_too(target: str, pattern: str) -> None:
    from fnmatch import fnmatchcase

    assert stable_target(target) == pattern
    assert pattern in (target, "pipe") or fnmatchcase(target, pattern)
