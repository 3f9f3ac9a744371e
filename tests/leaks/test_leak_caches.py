# SPDX-License-Identifier: Apache-2.0
"""Cache folders, planted and innocent; in a temporary folder of their own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool.leaks.caches import CacheChecker


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def checker(temporary: Path) -> CacheChecker:
    return CacheChecker(alone=True)


@pytest.fixture
def outer(tmp_path: Path) -> Path:
    folder = tmp_path / "outer"
    (folder / "fxgraph").mkdir(parents=True)
    return folder


class TestPlanted:
    def test_folder_that_a_test_made_and_named(
        self, account: Any, checker: CacheChecker, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = account(checker)
        folder = Path(tempfile.mkdtemp(prefix="torchinductor_planted"))
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        (folder / "ab").mkdir()
        (folder / "ab" / "kernel.py").write_text("pass")
        _, text = own.leak(folder.name)
        assert str(folder) in text
        assert "left behind" in text
        own.restore()
        own.assert_clean(0.0)
        assert list(temporary.iterdir()) == []

    def test_write_past_the_fresh_folders(self, account: Any, checker: CacheChecker, outer: Path) -> None:
        own = account(checker)
        checker.watch([outer])
        (outer / "zz").mkdir()
        (outer / "zz" / "kernel.py").write_text("pass")
        leak, text = own.leak("zz")
        assert f"{outer}/zz: written into the outer cache folder" in leak.after
        assert "older sidecar" in text
        assert "it stays: others may use that cache, too" in text
        own.restore()
        own.assert_clean(0.0)
        assert sorted(os.listdir(outer)) == ["fxgraph", "zz"]

    def test_it_is_still_told_after_the_watch(self, account: Any, checker: CacheChecker, outer: Path) -> None:
        own = account(checker)
        checker.watch([outer])
        (outer / "zz").mkdir()
        checker.unwatch()
        (outer / "later").mkdir()
        own.leak("zz")
        # The next test begins with it: it is told once.
        assert account(checker).leaks() == []
        own.restore()
        own.assert_clean(0.0)
        assert (outer / "later").is_dir()

    def test_outer_folder_that_was_not_there(
        self, account: Any, checker: CacheChecker, tmp_path: Path
    ) -> None:
        own = account(checker)
        checker.watch([tmp_path / "new"])
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").touch()
        own.leak("file")
        own.restore()
        own.assert_clean(0.0)

    def test_link_is_removed_and_not_followed(
        self,
        account: Any,
        checker: CacheChecker,
        temporary: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        own = account(checker)
        folder = temporary / "torchinductor_planted"
        monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
        folder.mkdir()
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").touch()
        (folder / "link").symlink_to(tmp_path / "precious")
        own.leak(folder.name)
        own.restore()
        own.assert_clean(0.0)
        assert (tmp_path / "precious" / "file").exists()


class TestInnocent:
    def test_folder_of_a_colleague(
        self, account: Any, checker: CacheChecker, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Another process of the same user, started meanwhile: nothing in this one names its folder.
        own = account(checker)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "torchinductor_other"))
        (temporary / "torchinductor_colleague").mkdir()
        assert own.leaks() == []

    def test_normal_folder_that_no_variable_hides_any_more(
        self, account: Any, checker: CacheChecker, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import getpass

        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "elsewhere"))
        own = account(checker)
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        (temporary / f"torchinductor_{getpass.getuser()}").mkdir()
        assert own.leaks() == []

    def test_folder_in_effect(self, account: Any, checker: CacheChecker, temporary: Path) -> None:
        # The first compile of a machine makes the normal, shared folder.
        import getpass

        own = account(checker)
        (temporary / f"torchinductor_{getpass.getuser()}").mkdir()
        assert own.leaks() == []

    def test_folder_in_effect_by_variable(
        self, account: Any, checker: CacheChecker, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "torchinductor_ci"))
        own = account(checker)
        (temporary / "torchinductor_ci").mkdir()
        assert own.leaks() == []

    def test_writing_into_the_normal_folder(self, account: Any, checker: CacheChecker, outer: Path) -> None:
        own = account(checker)
        (outer / "ab").mkdir()
        assert own.leaks() == []

    def test_writing_below_a_known_entry(self, account: Any, checker: CacheChecker, outer: Path) -> None:
        own = account(checker)
        checker.watch([outer])
        (outer / "fxgraph" / "new").mkdir()
        assert own.leaks() == []

    def test_headers_that_torch_keeps_in_its_default_folder(
        self, account: Any, checker: CacheChecker, outer: Path
    ) -> None:
        own = account(checker)
        checker.watch([outer])
        (outer / "precompiled_headers").mkdir()
        assert own.leaks() == []
        checker.unwatch()
        assert own.leaks() == []

    def test_folder_made_and_removed(self, account: Any, checker: CacheChecker, temporary: Path) -> None:
        own = account(checker)
        with tempfile.TemporaryDirectory(prefix="torchinductor_"):
            pass
        assert own.leaks() == []

    def test_folder_of_another_name(self, account: Any, checker: CacheChecker, temporary: Path) -> None:
        own = account(checker)
        (temporary / "pytest-of-me").mkdir()
        assert own.leaks() == []

    def test_beside_other_xdist_workers_nothing_is_judged(
        self, account: Any, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
        own = account(CacheChecker())
        (temporary / "torchinductor_of_whom").mkdir()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "torchinductor_of_whom"))
        assert own.leaks() == []

    def test_single_xdist_worker_is_alone(
        self, account: Any, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1")
        own = account(CacheChecker())
        (temporary / "torchinductor_of_us").mkdir()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "torchinductor_of_us"))
        assert len(own.leaks()) == 1
