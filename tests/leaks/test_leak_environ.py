# SPDX-License-Identifier: Apache-2.0
"""Environment variables, planted and innocent."""

from __future__ import annotations

import os
import sys
import tempfile
from types import ModuleType
from typing import Any

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.environ import EnvironChecker

NAME = "COMPILEPOOL_TEST_PLANTED"


class TestPlanted:
    def test_variable_that_was_not_there(self, account: Any) -> None:
        own = account(EnvironChecker())
        os.environ[NAME] = "1"
        leak, text = own.leak(NAME)
        assert (leak.before, leak.after) == ("not set", "'1'")
        assert f'allow=["environ:{NAME}"]' in text
        own.restore()
        own.assert_clean(0.0)
        assert NAME not in os.environ

    def test_variable_of_another_value(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(NAME, "old")
        own = account(EnvironChecker())
        os.environ[NAME] = "new"
        leak, _ = own.leak(NAME)
        assert (leak.before, leak.after) == ("'old'", "'new'")
        own.restore()
        own.assert_clean(0.0)
        assert os.environ[NAME] == "old"

    def test_variable_that_is_gone(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(NAME, "old")
        own = account(EnvironChecker())
        del os.environ[NAME]
        assert own.leak(NAME)[0].after == "not set any more"
        own.restore()
        own.assert_clean(0.0)
        assert os.environ[NAME] == "old"

    @pytest.mark.parametrize(
        "name", ["MY_API_KEY", "HF_TOKEN", "db_password", "CLIENT_SECRET", "X_CREDENTIALS"]
    )
    def test_secret_is_not_shown(self, account: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "hunter1")
        own = account(EnvironChecker())
        os.environ[name] = "hunter2"
        leak, text = own.leak(name)
        assert "hunter" not in text + str(leak)
        assert "<hidden>" in text
        assert "another value" in leak.after
        own.restore()
        assert os.environ[name] == "hunter1"

    def test_password_in_a_url_is_not_shown(self, account: Any) -> None:
        own = account(EnvironChecker())
        os.environ[NAME] = "postgres://me:hunter2@host/db"
        assert own.leak(NAME)[0].after == "'postgres://<hidden>@host/db'"
        own.restore()

    def test_folder_that_torch_would_not_choose(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
        own = account(EnvironChecker())
        os.environ["TRITON_CACHE_DIR"] = "/somewhere/else"
        own.leak("TRITON_CACHE_DIR")
        own.restore()
        own.assert_clean(0.0)

    def test_by_product_that_was_there_with_another_value(
        self, account: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "4")
        own = account(EnvironChecker())
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        own.leak("TORCHINDUCTOR_COMPILE_THREADS")
        own.restore()
        assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == "4"

    @pytest.mark.parametrize(
        ("name", "value", "library"),
        [("TORCHINDUCTOR_COMPILE_THREADS", "1", "vllm"), ("KMP_DUPLICATE_LIB_OK", "TRUE", "torch")],
    )
    def test_by_product_of_a_library_that_is_not_loaded(
        self, account: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, library: str
    ) -> None:
        monkeypatch.delenv(name, raising=False)
        own = account(EnvironChecker())
        os.environ[name] = value
        with monkeypatch.context() as patch:
            others = {key: module for key, module in sys.modules.items() if key.partition(".")[0] != library}
            patch.setattr(sys, "modules", others)
            verdict = own.verdict()
        assert [leak.key for leak in verdict.leaks] == [name]
        assert verdict.silent == []
        census.restore([own.checker], verdict.leaks)
        assert name not in os.environ

    def test_mapping_that_was_replaced(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.environ
        own = account(EnvironChecker())
        # A copy hides what is done to it from the real one, and what the real one was given before stays there.
        real[NAME] = "1"
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", {**real, "ONLY_IN_THE_COPY": "1"})
            leaks = own.leaks()
            assert {leak.key: (leak.before, leak.after) for leak in leaks} == {
                "os.environ": ("os._Environ", "another object: builtins.dict"),
                NAME: ("not set", "'1'"),
            }
            assert census.restore([own.checker], leaks[::-1]) == []
            assert os.environ is real
        assert NAME not in real
        own.assert_clean(0.0)

    def test_mapping_that_was_emptied_is_one_leak(
        self, account: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = account(EnvironChecker())
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", {})
            leak, text = own.leak()
            assert 'allow=["environ:os.environ"]' in text
            own.checker.restore([leak])
            own.assert_clean(0.0)

    def test_mapping_that_is_an_equal_one(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        own = account(EnvironChecker())
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", dict(os.environ))
            own.leak("os.environ")


class TestInnocent:
    def test_mapping_replaced_and_put_back(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        own = account(EnvironChecker())
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", dict(os.environ))
        assert own.leaks() == []

    def test_set_and_put_back(self, account: Any) -> None:
        own = account(EnvironChecker())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(NAME, "1")
        assert own.leaks() == []

    def test_set_to_what_it_was(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(NAME, "same")
        own = account(EnvironChecker())
        os.environ[NAME] = "same"
        assert own.leaks() == []

    @pytest.mark.parametrize(
        "name",
        ["PYTEST_CURRENT_TEST", "PYTEST_VERSION", "PYTEST_XDIST_WORKER", proctree.TAG],
    )
    def test_what_the_runner_writes(self, account: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "before")
        own = account(EnvironChecker())
        monkeypatch.setenv(name, "after")
        assert own.leaks() == []

    @pytest.mark.parametrize(
        ("name", "value", "put_back"),
        [
            ("TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), "torchinductor_me"), True),
            ("TRITON_CACHE_DIR", "/tmp/torchinductor_me/triton/0", True),
            ("TORCHINDUCTOR_COMPILE_THREADS", "1", True),
            ("TRITON_PTXAS_PATH", "/site-packages/torch/bin/ptxas", False),
            ("TRITON_LIBDEVICE_PATH", "/usr/local/cuda/nvvm/libdevice/libdevice.10.bc", False),
        ],
    )
    def test_what_torch_and_vllm_write_is_put_back_in_silence(
        self, account: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, put_back: bool
    ) -> None:
        # Either library may be missing here; one that is there only in part has written it, too.
        monkeypatch.setitem(sys.modules, "torch.planted", ModuleType("torch.planted"))
        monkeypatch.setitem(sys.modules, "vllm.planted", ModuleType("vllm.planted"))
        monkeypatch.delenv(name, raising=False)
        own = account(EnvironChecker())
        monkeypatch.setenv(name, value)
        verdict = own.verdict()
        assert verdict.leaks == []
        census.restore([own.checker], verdict.silent)
        assert (name in os.environ) is not put_back

    def test_what_the_real_torch_writes(
        self, account: Any, inductor: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        own = account(EnvironChecker())
        cache_dir()
        assert "TORCHINDUCTOR_CACHE_DIR" in os.environ
        verdict = own.verdict()
        assert verdict.leaks == []
        census.restore([own.checker], verdict.silent)
        assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
