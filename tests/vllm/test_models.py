# SPDX-License-Identifier: Apache-2.0
"""Models by name or folder, for engines that tests start. No vLLM."""

from __future__ import annotations

import json

import pytest

from pytest_compilepool.vllm.engines import models


def test_models_of_this_package():
    found = models.bundled()
    assert {"tiny-opt", "tiny-llama", "small-phimoe"} <= set(found)
    for name, folder in found.items():
        assert models.find(name) == folder
        told = json.loads((folder / "config.json").read_text())
        assert told["architectures"]
        assert told["torch_dtype"]


def test_a_folder_is_a_model_where_it_has_a_config(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError) as raised:
        models.find(str(tmp_path / "mine"), "COMPILEPOOL_VLLM_MODEL")
    assert str(raised.value).startswith(f"COMPILEPOOL_VLLM_MODEL: {str(tmp_path / 'mine')!r} is neither")
    assert "tiny-opt" in str(raised.value)
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert models.find(str(tmp_path / "mine")) == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    assert models.find("mine") == tmp_path / "mine"


@pytest.mark.parametrize("name", ["", "tiny", "facebook/opt-125m", "tiny-opt/config.json"])
def test_a_model_that_is_none(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^model: .* is neither a folder with a config.json nor one of"):
        models.find(name)
