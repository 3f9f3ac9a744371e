# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from small_suites import FEATURE, SCENARIO

TESTS = Path(__file__).parents[1]

REFERENCE = "reference_pool.requirements:ReferenceRequirements"


@pytest.fixture
def own_suite(inner, pytester, monkeypatch):
    """Run a small suite over the reference pool. Takes manifest, scenarios and expectations as text, then arguments."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))

    def run(
        *arguments: str,
        features: str = FEATURE,
        scenarios: str = SCENARIO,
        expectations: str | None = None,
        requirements: str = REFERENCE,
    ) -> pytest.RunResult:
        (pytester.path / "features.toml").write_text(features)
        if expectations is not None:
            (pytester.path / "expected.toml").write_text(expectations)
            arguments += ("--compilepool-expectations=expected.toml",)
        return inner(
            textwrap.dedent(scenarios),
            f"--compilepool-requirements={requirements}",
            "-p",
            "no:cacheprovider",
            *arguments,
        )

    return run
