# SPDX-License-Identifier: Apache-2.0
"""For all of the project's own tests."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SECONDS = 180.0
"""No test of ours takes that long; what does hangs, and is to say so rather than stop the run."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # As a marker, since the ini key `timeout` is an error for a run without pytest-timeout.
    if not config.pluginmanager.hasplugin("timeout") or config.getoption("timeout") is not None:
        return
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))
