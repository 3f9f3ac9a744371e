# SPDX-License-Identifier: Apache-2.0
"""The file of `--compilepool-cell`: written anew with every verdict, so that a run that is killed leaves what it knew."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_compilepool.matrix.writing import remove_earlier, write_whole
from pytest_compilepool.report import cells
from pytest_compilepool.report.conformance import Verdicts, verdict_of


class CellFile:
    """A plugin of the controller, or of the only process."""

    def __init__(self, config: pytest.Config, file: Path, found: Verdicts, asked: cells.Asked) -> None:
        """found: what the cell is made of. Raises UsageError where nothing can be written there."""
        self._config, self._file, self._found, self._asked = config, file, found, asked
        self._run = cells.RunInfo()
        why = unwritable(file)
        if why:
            raise pytest.UsageError(
                f"--compilepool-cell: {str(file)!r} cannot be written: {why}; allowed: a file in a folder that is there"
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """The pool is asked for its facts and timed while nothing else runs: before xdist starts its workers."""
        if self._config.getoption("collectonly"):
            return
        remove_earlier(self._file)
        self._run = cells.run_info(self._config, self._asked, time.time())

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One more verdict, which `found` has by now; the run may be killed before the next."""
        if verdict_of(report) is not None:
            self.write(complete=False)

    def write(self, complete: bool) -> str:
        """complete: the run has come to its end. Returns why it cannot be written, as with a full disk, or an empty text:
        what was found is still to be told."""
        try:
            write_whole(self._file, cells.made(self._found, self._run, self._asked, complete).to_text())
        except OSError as error:
            return f"--compilepool-cell: {str(self._file)!r} cannot be written: {error.strerror or error}"
        return ""


def unwritable(file: Path) -> str:
    """Why no cell can be written there, or an empty text."""
    try:
        file.stat()
    except FileNotFoundError:
        pass  # what is there instead is seen below
    except NotADirectoryError:
        return f"there is no folder {str(file.parent)!r}"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", "") or str(error)
    if file.is_dir():
        return "it is a folder"
    if not file.parent.is_dir():
        return f"there is no folder {str(file.parent)!r}"
    return "" if os.access(file if file.exists() else file.parent, os.W_OK) else "no permission"
