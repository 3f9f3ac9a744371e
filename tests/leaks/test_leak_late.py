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

def test_late(monkeypatch, tmp_path):
    assert not any(name.startswith("torch") for name in sys.modules)
    monkeypatch.setenv("PUT_BACK", "1")
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, PUT_BACK_EARLIER="1"):
        make_a_pool()
    kept.append(open("left-open", "w"))

kept = []
"""


def test_what_is_put_back_is_no_leak(inner: Callable[..., pytest.RunResult]) -> None:
    result = inner(LATE, "--compilepool-prestart=off")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_late left behind:*", "*fds: *left-open*"])
    for name in ("environ", "cwd"):
        result.stdout.no_fnmatch_line(f"*{name}: *")
