# SPDX-License-Identifier: Apache-2.0
"""Two runs that failed for one cause look alike, and for two causes do not."""

from __future__ import annotations

import pytest

from pytest_compilepool.matrix.signature import signature

HANG = """the scenario was still at it after 60 s and was ended; where it stood:
Timeout (0:01:00)!
Thread 0x00007f{0} (most recent call first):
  File "/{1}/python3.11/threading.py", line {2} in wait
  File "/{1}/site-packages/torch/_inductor/compile_worker/subproc_pool.py", line {2} in quiesce
"""
RAISED = """RuntimeError: pool {0} of pid {2} in /{1}/x/y.sock is closed
Traceback (most recent call last):
  File "/{1}/conformance/child.py", line 7, in _try
    scenario(bench)
  File "/{1}/suites/test_warm.py", line {2}, in test_it
    pool.submit()
  File "/{1}/torch/pool.py", line {2}, in submit
    raise
"""


@pytest.mark.parametrize("text", [HANG, RAISED])
def test_another_run_has_the_same(text):
    one = signature(text.format("a1b2c3d4e5", "usr/lib", 12))
    assert one == signature(text.format("00ff00ff00", "home/ci/venv", 993))
    assert "/" not in one
    assert not set(one) & set("0123456789")


def told(text):
    return text.format("a1b2c3d4e5", "usr/lib", 12)


def test_frames_are_told_innermost_first():
    assert signature(told(HANG)).endswith("threading.py:wait < subproc_pool.py:quiesce")
    assert signature(told(RAISED)).endswith("pool.py:submit < test_warm.py:test_it")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("FAIL: a worker is left", "FAIL: the sidecar is left"),
        (HANG, HANG.replace("in quiesce", "in shutdown")),
        (RAISED, RAISED.replace("RuntimeError", "OSError")),
    ],
)
def test_another_cause_has_another(one, other):
    assert signature(told(one)) != signature(told(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("threads at its forks: [1, 2]", "threads at its forks: [3, 3, 3, 4]"),
        ("still there: pid 11", "still there: pid 11, pid 12, pid 345"),
        (
            "the worker of triton_per_fused__softmax_exp_sub_0 was killed",
            "the worker of triton_red_fused_add_12 was killed",
        ),
        (
            "left: compilepool-7-1a2b3c4d-ab_4efgh, compilepool-12-shared-abcdefab-12345678",
            "left: compilepool-99-vllm-00ff00ff-zzzz1_zz",
        ),
        ("open: {3: 'pipe:[88]', 4: 'pipe:[89]'}", "open: {7: 'pipe:[1]'}"),
    ],
)
def test_how_many_there_were_is_no_other_cause(one, other):
    assert signature(one) == signature(other)


def test_of_two_kinds_both_are_told():
    assert signature("left: pid 1, pid 2, pidfd 3, fd 4, fd 5") == "left: pid N, pidfd N, fd N"
    assert signature("a, ab, a b, a bc") == "a, ab, a b, a bc"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("word", ["word ", "x, y1, ", "a"])
def test_a_line_without_end_takes_no_time(word):
    assert len(signature(word * 100_000)) <= 200


def test_of_nothing():
    assert signature("") == ""
    assert signature("\n\n") == ""
