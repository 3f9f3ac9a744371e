# SPDX-License-Identifier: Apache-2.0
"""The file of `--compilepool-cell`: written anew with every verdict, so that a run that is killed leaves what it knew."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_compilepool.matrix.cell import Cell
from pytest_compilepool.report import cells
from pytest_compilepool.report.conformance import Verdicts, verdict_of


class CellFile:
    """A plugin of the controller, or of the only process."""

    def __init__(self, config: pytest.Config, file: Path, found: Verdicts, asked: cells.Asked) -> None:
        """found: what the cell is made of. Raises UsageError where nothing can be written there."""
        self._config, self._file, self._found, self._asked = config, file, found, asked
        self._run = cells.RunInfo()
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise pytest.UsageError(f"--compilepool-cell: {str(file)!r} cannot be written")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """The pool is asked for its facts and timed while nothing else runs: before xdist starts its workers."""
        if not self._config.getoption("collectonly"):
            self._run = cells.run_info(self._config, self._asked, time.time())

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One more verdict, which `found` has by now; the run may be killed before the next."""
        if verdict_of(report) is not None:
            self.write(complete=False)

    def write(self, complete: bool) -> None:
        """complete: the run has come to its end. Raises UsageError where it cannot be written, as with a full disk."""
        cell = cells.made(self._found, self._run, self._asked, complete)
        try:
            _replace(self._file, cell)
        except OSError as error:
            raise pytest.UsageError(
                f"--compilepool-cell: {str(self._file)!r} cannot be written: {error}"
            ) from None


def _replace(file: Path, cell: Cell) -> None:
    """What was there is the old cell or the new one, never half of one."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_text(cell.to_text(), encoding="utf-8")
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
