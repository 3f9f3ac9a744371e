# SPDX-License-Identifier: Apache-2.0
"""Texts of small suites."""

from __future__ import annotations

FEATURE = """
[[feature]]
id = "jobs.add"
title = "Adds"
must = "A pool MUST add."
since = "0.1"
mode = "smoke"
"""

EXPECT = """
[[expect]]
feature = "jobs.add"
torch = ">=2.8"
status = ["FAIL"]
bug = "https://example.org/1"
"""

SCENARIO = """
from pytest_compilepool.conformance.feature import feature
from pytest_compilepool.workloads import jobs

@feature("jobs.add")
def test_add(bench):
    bench.ready()
    bench.second_job()
"""
