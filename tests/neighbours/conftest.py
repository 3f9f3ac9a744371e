# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests of the lock of exclusive tests."""

from __future__ import annotations

import pytest
from holding import HOLDER, Holder

from pytest_compilepool import places


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A folder of this test's own: neither the sessions of this machine nor the one around it meet it there."""
    folder = tmp_path / "state"
    monkeypatch.setenv(places.VARIABLE, str(folder))
    return folder


@pytest.fixture
def hold(state):
    """Start a process that holds the lock, "alone" or "shared"."""
    made: list[Holder] = []

    def start(how: str, source: str = HOLDER) -> Holder:
        made.append(Holder(how, state, source))
        made[-1].entered()
        return made[-1]

    yield start
    for holder in made:
        holder.end()
