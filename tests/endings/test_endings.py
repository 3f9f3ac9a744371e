# SPDX-License-Identifier: Apache-2.0
"""However a session ends, it ends within its bound, with the right status, and three seconds later nothing of it is left.

All pairs of an ending and a state of the pool, alone and with xdist, take half an hour; each run tries every ending alone,
every fourth one with xdist too, and the states of the pool in turn. COMPILEPOOL_TEST_ENDINGS=all tries all of them, and
`table.py` prints them.
"""

from __future__ import annotations

import os

import memory_limit
import pytest
from ending_scenario import CLEAN_WITHIN, ENDINGS, POOLS, play

from pytest_compilepool.torch_compat import capabilities
from pytest_compilepool.torch_compat.installed import torch_available

ALL = os.environ.get("COMPILEPOOL_TEST_ENDINGS") == "all"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch_available(), reason="needs torch"),
    pytest.mark.skipif(
        torch_available() and not capabilities().quiesce, reason="needs a torch that can quiesce"
    ),
]


def combinations() -> list[tuple[str, bool, str]]:
    found = []
    for number, ending in enumerate(ENDINGS.values()):
        for xdist in (False, True):
            if (ending.only_xdist and not xdist) or (xdist and number % 4 and not ALL):
                continue
            # What never ends is the hardest: every ending meets it, the one way or the other, or in another run.
            turn = POOLS if ALL else ("never",) if (number + xdist) % 2 else (POOLS[number // 2 % 2],)
            found += [(ending.name, xdist, pool) for pool in turn]
    return found


@pytest.mark.parametrize(("name", "xdist", "pool"), combinations())
def test_ending(tmp_path, name, xdist, pool):
    ending = ENDINGS[name]
    if ending.cgroup and (why := memory_limit.writable()):
        pytest.skip(f"no worker can be killed for its memory: {why}")
    seen = play(ending, xdist, pool, tmp_path)
    assert seen.there, f"the test did not get as far as to its end:\n{seen.output[-3000:]}"
    assert seen.status is not None, (
        f"it had not ended {ending.within:g} s after {name}:\n{seen.output[-3000:]}"
    )
    assert seen.kills == (1 if ending.cgroup else 0)
    assert seen.left == [], f"still there {CLEAN_WITHIN:g} s after its end"
    assert seen.shared == []
    assert seen.folders == []
    right = ending.of_run if xdist else ending.status
    # Twice is what it is where the second one comes while pytest writes of the first.
    allowed = {right, -2} if name == "ctrl-c-twice" else {right}
    assert seen.status in allowed, seen.output[-3000:]
    records = {account.running or account.died.get("test") for account in seen.records}
    test = "test_ending.py::test_that_ends_it"
    if ending.record:
        # A controller that has heard of it tells it, and the record has served.
        assert test in records or f"went down in {test}" in seen.output, seen.output[-3000:]
        assert all(account.died for account in seen.records), "whoever cleaned up has not said so"
    elif name != "ctrl-c-twice":
        assert records == set()
