# SPDX-License-Identifier: Apache-2.0
"""A test in the middle of which torch appears: it is looked at from there on, and what it has put back is no leak."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")

LATE = """
import os, sys
from unittest import mock

def make_a_pool():
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile, shutdown_compile_workers

    with config.patch(compile_threads=2, worker_start_method="subprocess"):
        AsyncCompile.process_pool()
        shutdown_compile_workers()

# Without tmp_path: where a fixture of wider scope ends that nobody has seen begin, no values are judged anyway.
def test_late(monkeypatch):
    assert not any(name.startswith("torch") for name in sys.modules)
    monkeypatch.setenv("PUT_BACK", "1")
    monkeypatch.chdir("/")
    with mock.patch.dict(os.environ, PUT_BACK_EARLIER="1"):
        make_a_pool()
    kept.append(open(__file__))

kept = []
"""


def test_what_is_put_back_is_no_leak(inner: Callable[..., pytest.RunResult]) -> None:
    result = inner(LATE, "--compilepool-prestart=off")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_late left behind:*", "*fds: *test_inner.py*"])
    for name in ("environ", "cwd"):
        result.stdout.no_fnmatch_line(f"*{name}: *")
