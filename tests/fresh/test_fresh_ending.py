# SPDX-License-Identifier: Apache-2.0
"""The end of an interpreter that goes on starting others while it is ended, as a sidecar does that forks its workers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.fresh.ending import end_all

FORKER = """
import os, sys, time

# As a sidecar: a child of the interpreter, which forks and forks; none of it knows of the others.
if os.fork() == 0:
    started = 0
    while started < 400:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        started += 1
        if started == 20:
            print("ready", flush=True)
        time.sleep(0.0005)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "getsid") or not sys.platform.startswith("linux"), reason="told by /proc")
@pytest.mark.parametrize("attempt", range(3))
def test_what_is_started_meanwhile_is_ended_too(attempt):
    tag = proctree.tag_below()
    child = subprocess.Popen(
        [sys.executable, "-c", FORKER],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, proctree.TAG: tag},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    finally:
        end_all(child, tag)
    left = [row.pid for row in proctree.table().values() if not row.dead and proctree.is_tagged(row.pid, tag)]
    child.stdout.close()
    for pid in left:
        os.kill(pid, 9)
    assert left == []
