# SPDX-License-Identifier: Apache-2.0
"""Current folder, signal handlers, warnings filters: planted and innocent."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.cwd import CwdChecker
from pytest_compilepool.leaks.filters import WarningsChecker
from pytest_compilepool.leaks.signals import SignalChecker


@pytest.fixture(autouse=True)
def _back_home(tmp_path: Path) -> Iterator[None]:
    home = os.getcwd()
    yield
    os.chdir(home)


class TestCwdPlanted:
    def test_other_folder(self, account: Any, tmp_path: Path) -> None:
        home = os.getcwd()
        own = account(CwdChecker())
        os.chdir(tmp_path)
        leak, text = own.leak("cwd")
        assert (leak.before, leak.after) == (home, str(tmp_path))
        assert 'allow=["cwd:cwd"]' in text
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove the current folder")
    def test_folder_that_was_removed(self, account: Any, tmp_path: Path) -> None:
        own = account(CwdChecker())
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert "removed" in own.leak()[0].after
        own.restore()
        own.assert_clean(0.0)

    def test_folder_below(self, account: Any, tmp_path: Path) -> None:
        os.chdir(tmp_path)
        own = account(CwdChecker())
        (tmp_path / "below").mkdir()
        os.chdir("below")
        assert own.leak()[0].after.endswith("below")
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove the current folder")
    def test_way_back_that_is_gone_is_no_error(self, account: Any, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        os.chdir(tmp_path / "a")
        own = account(CwdChecker())
        os.chdir(tmp_path)
        (tmp_path / "a").rmdir()
        own.restore()
        assert os.getcwd() == str(tmp_path)


class TestCwdInnocent:
    def test_there_and_back(self, account: Any, tmp_path: Path) -> None:
        home = os.getcwd()
        own = account(CwdChecker())
        os.chdir(tmp_path)
        os.chdir(home)
        assert own.leaks() == []

    def test_monkeypatch(self, account: Any, tmp_path: Path) -> None:
        own = account(CwdChecker())
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
        assert own.leaks() == []

    def test_same_folder_by_another_name(self, account: Any, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        os.chdir(tmp_path / "real")
        own = account(CwdChecker())
        os.chdir(tmp_path / "link")
        assert own.leaks() == []


def planted_handler(number: int, frame: FrameType | None) -> None:
    raise AssertionError("nobody sends this signal")


@pytest.mark.skipif(os.name != "posix", reason="signals that Windows does not have")
class TestSignalsPlanted:
    def test_handler_is_named(self, account: Any) -> None:
        own = account(SignalChecker())
        signal.signal(signal.SIGUSR1, planted_handler)
        leak, text = own.leak("SIGUSR1")
        assert leak.before == "SIG_DFL"
        assert "planted_handler" in text
        assert os.path.basename(__file__) in text
        own.restore()
        own.assert_clean(0.0)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

    def test_ignored(self, account: Any) -> None:
        own = account(SignalChecker())
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        assert own.leak("SIGUSR2")[0].after == "SIG_IGN"
        own.restore()
        own.assert_clean(0.0)

    def test_taken_away(self, account: Any) -> None:
        # As asyncio and some servers do with Ctrl-C.
        own = account(SignalChecker())
        handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
        assert own.leak("SIGINT")[0].after == "SIG_DFL"
        own.restore()
        own.assert_clean(0.0)
        assert signal.getsignal(signal.SIGINT) is handler

    def test_real_time_signal(self, account: Any) -> None:
        number = signal.SIGRTMIN + 3
        own = account(SignalChecker())
        signal.signal(number, planted_handler)
        own.leak(f"signal {number}")
        own.restore()
        own.assert_clean(0.0)

    def test_only_the_main_thread_restores(self, account: Any) -> None:
        own = account(SignalChecker())
        signal.signal(signal.SIGUSR1, planted_handler)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no error swallowed into a warning either
            thread = threading.Thread(target=own.restore)
            thread.start()
            thread.join()
        assert len(own.leaks()) == 1
        own.restore()
        own.assert_clean(0.0)


@pytest.mark.skipif(os.name != "posix", reason="signals that Windows does not have")
class TestSignalsInnocent:
    def test_set_and_put_back(self, account: Any) -> None:
        own = account(SignalChecker())
        signal.signal(signal.SIGUSR1, signal.signal(signal.SIGUSR1, planted_handler))
        assert own.leaks() == []

    def test_set_to_the_same(self, account: Any) -> None:
        old = signal.signal(signal.SIGUSR1, planted_handler)
        own = account(SignalChecker())
        signal.signal(signal.SIGUSR1, planted_handler)
        assert own.leaks() == []
        signal.signal(signal.SIGUSR1, old)

    def test_handler_of_pytest_timeout(self, account: Any) -> None:
        plugin = pytest.importorskip("pytest_timeout")
        old = signal.signal(signal.SIGALRM, signal.SIG_DFL)
        own = account(SignalChecker())

        def handler(number: int, frame: FrameType | None) -> None: ...

        handler.__module__ = plugin.__name__
        signal.signal(signal.SIGALRM, handler)
        assert own.leaks() == []
        signal.signal(signal.SIGALRM, old)

    def test_handler_that_torch_installs_for_life(self, account: Any) -> None:
        handling = pytest.importorskip("torch.utils.data._utils.signal_handling")
        old = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # As the first DataLoader with workers does, whether or not this process has had one.
        was_set, handling._SIGCHLD_handler_set = handling._SIGCHLD_handler_set, False
        try:
            own = account(SignalChecker())
            handling._set_SIGCHLD_handler()
            installed = signal.getsignal(signal.SIGCHLD)
            assert callable(installed)
            assert own.leaks() == []
            # Whoever takes it away does leave something behind.
            own = account(SignalChecker())
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            own.leak("SIGCHLD")
            own.restore()
            assert signal.getsignal(signal.SIGCHLD) is installed
        finally:
            handling._SIGCHLD_handler_set = was_set
            signal.signal(signal.SIGCHLD, old)

    def test_signal_mask_is_another_thing(self, account: Any) -> None:
        own = account(SignalChecker())
        old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        assert own.leaks() == []
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


class PlantedWarning(UserWarning):
    pass


def warn() -> None:
    warnings.warn("planted", PlantedWarning, stacklevel=1)


@pytest.fixture
def _own_filters() -> Iterator[None]:
    with warnings.catch_warnings():
        yield


@pytest.mark.usefixtures("_own_filters")
class TestWarningsPlanted:
    def test_filter_is_named(self, account: Any) -> None:
        own = account(WarningsChecker(restored_by_pytest=False))
        warnings.filterwarnings("ignore", message="planted", category=PlantedWarning)
        leak, text = own.leak("ignore:PlantedWarning")
        assert leak.before == "no such filter"
        assert "ignore:planted:PlantedWarning" in text
        own.restore()
        own.assert_clean(0.0)

    def test_all_filters_gone(self, account: Any) -> None:
        warnings.simplefilter("error", PlantedWarning)
        before = list(warnings.filters)
        own = account(WarningsChecker(restored_by_pytest=False))
        warnings.resetwarnings()
        assert "error:PlantedWarning" in {leak.key for leak in own.leaks()}
        own.restore()
        own.assert_clean(0.0)
        assert list(warnings.filters) == before

    def test_restored_filters_act(self, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(warnings, "showwarning", lambda *arguments: None)
        warnings.simplefilter("error", PlantedWarning)
        own = account(WarningsChecker(restored_by_pytest=False))
        warnings.simplefilter("default", PlantedWarning)
        warn()  # shown once, and remembered as shown
        own.restore()
        own.assert_clean(0.0)
        with pytest.raises(PlantedWarning):
            warn()

    def test_same_filter_appended_once_more(self, account: Any) -> None:
        entry = ("ignore", None, PlantedWarning, None, 0)
        warnings.filters[:] = [entry, *warnings.filters]  # type: ignore[index]
        own = account(WarningsChecker(restored_by_pytest=False))
        warnings.filters[:] = [*warnings.filters, entry]  # type: ignore[index]
        own.leak("ignore:PlantedWarning")
        own.restore()
        own.assert_clean(0.0)


@pytest.mark.usefixtures("_own_filters")
class TestWarningsInnocent:
    def test_catch_warnings(self, account: Any) -> None:
        own = account(WarningsChecker(restored_by_pytest=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
        assert own.leaks() == []

    def test_pytest_puts_them_back(self, account: Any) -> None:
        own = account(WarningsChecker(restored_by_pytest=True))
        warnings.simplefilter("ignore", PlantedWarning)
        assert own.leaks() == []
        assert own.before.snapshots == {"warnings": None}

    def test_module_that_brings_its_filters(
        self, account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "brings_its_own_filters"
        (tmp_path / f"{name}.py").write_text(
            "import warnings\nwarnings.filterwarnings('ignore', 'planted')\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        own = account(WarningsChecker(restored_by_pytest=False))
        importlib.import_module(name)
        assert any("planted" in str(entry) for entry in warnings.filters)
        assert own.leaks() == []
        del sys.modules[name]

    def test_same_filter_again(self, account: Any) -> None:
        warnings.simplefilter("ignore", PlantedWarning)
        own = account(WarningsChecker(restored_by_pytest=False))
        warnings.simplefilter("ignore", PlantedWarning)
        assert own.leaks() == []


def test_none_of_them_is_waited_for(account: Any, tmp_path: Path) -> None:
    own = account(CwdChecker())
    os.chdir(tmp_path)
    verdict = own.verdict(grace=30.0)
    assert verdict.leaks
    assert verdict.waited < 5.0
    census.restore([own.checker], verdict.leaks)
