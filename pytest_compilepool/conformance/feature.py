# SPDX-License-Identifier: Apache-2.0
"""How a suite declares the scenario of a feature. Imports nothing: a scenario runs in an interpreter without pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ATTRIBUTE = "compilepool_feature_id"


def feature(identifier: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a scenario the test of a feature. identifier: as in `features.toml`.

    The scenario takes a `Bench` and runs in a fresh interpreter of its own; the pytest item that it becomes starts
    that interpreter and judges what it says. What it raises fails the feature: AssertionError for a promise that was
    not kept, `Unanswered` for an answer that did not come.
    """

    def declare(scenario: Callable[..., None]) -> Callable[..., None]:
        def test(compilepool_feature: Any) -> None:
            compilepool_feature.judge()

        test.__name__, test.__qualname__ = scenario.__name__, scenario.__qualname__
        test.__module__, test.__doc__ = scenario.__module__, scenario.__doc__
        test.scenario = scenario  # type: ignore[attr-defined]
        setattr(test, ATTRIBUTE, identifier)
        return test

    return declare
