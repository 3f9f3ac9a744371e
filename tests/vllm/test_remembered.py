# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a configuration is a help and no more: where it cannot be written or read there is none."""

from __future__ import annotations

import pytest

from pytest_compilepool.vllm.remembered import Remembered, identity_of


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def test_nothing_is_raised_where_it_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    kept = Remembered(tmp_path / "file", "a configuration")
    kept.remember()
    kept.forget()
    assert not kept.has_artifacts()


def test_what_has_no_identity_is_not_remembered(root):
    root.mkdir()
    kept = Remembered(root, "")
    kept.remember()
    kept.forget()
    assert not kept.has_artifacts()
    assert list(root.iterdir()) == []


def test_a_note_without_an_artifact_says_nothing(root):
    kept = Remembered(root, "a configuration")
    kept.remember()
    assert not kept.has_artifacts()
    kept.forget()
    kept.forget()


def test_a_configuration_that_has_no_hash_has_no_identity():
    class Config:
        def compute_hash(self):
            raise AttributeError("half made")

    assert identity_of(Config(), "2.13.0") == ""
