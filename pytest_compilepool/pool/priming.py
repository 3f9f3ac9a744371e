# SPDX-License-Identifier: Apache-2.0
"""Which processes of a pool have a first Triton compile behind them, and what makes them pay for it."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from pytest_compilepool import sessionrecord
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.targets import triton_target


class Priming:
    """Of one pool. target: for which its sidecar is to compile a kernel before it forks, an empty text for none.

    Raises BadTarget.
    """

    def __init__(self, target: str) -> None:
        self.target = triton_target(target, "prime") if target else ""
        self._paid: dict[str, set[ProcessKey]] = {}
        self._folders: set[str] = set()
        self._in_use = ""
        self.said = ""
        """What a worker has told of its sidecar, in a sentence; empty while nobody was asked."""

    def for_sidecar(self) -> tuple[Any, dict[str, str]]:
        """What makes a sidecar that is primed: its pickler, and what tells it for which target."""
        if not self.target:
            return None, {}
        from pytest_compilepool.workloads import primed

        return primed.PrimedPickler(), {primed.VARIABLE: self.target}

    @property
    def to_be_asked(self) -> bool:
        """Whether the sidecar was to do it, and nobody has told yet whether it has."""
        return bool(self.target) and not self.said

    def told(self, sidecar: ProcessKey | None, said: str) -> None:
        """A worker has said what its sidecar did."""
        from pytest_compilepool.workloads import primed

        self.said = said or f"not primed for {self.target}: its sidecar knows nothing of it"
        if sidecar is not None and said.startswith(primed.PRIMED):
            self.paid(self.target, [sidecar])

    def paid(self, target: str, keys: list[ProcessKey]) -> None:
        """These have compiled a kernel for that target; a sidecar's workers inherit it."""
        self._paid.setdefault(target, set()).update(keys)

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """One for workers to compile in. What they still write there after the block is removed by `tidy()`."""
        # By its name whoever cleans up after this process finds it.
        folder = self._in_use = tempfile.mkdtemp(prefix=sessionrecord.folder_prefix("prime"))
        self._folders.add(folder)
        try:
            yield folder
        finally:
            self._in_use = ""
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self, sidecar: int | None) -> None:
        """Remove what workers that are gone have left, and a sidecar of that pid that died while it compiled."""
        for folder in [one for one in self._folders if one != self._in_use]:
            shutil.rmtree(folder, ignore_errors=True)
            self._folders.discard(folder)
        if not self.target or sidecar is None:
            return
        from pytest_compilepool.workloads import primed

        start = os.path.join(tempfile.gettempdir(), primed.folder_prefix(Genuine.getpid(), sidecar))
        for folder in glob.glob(f"{glob.escape(start)}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def forget(self) -> None:
        """There is another sidecar."""
        self._paid.clear()
        self.said = ""

    def has(self, target: str, sidecar: ProcessKey | None, workers: list[ProcessKey]) -> bool:
        """Whether all of these workers have it behind them for that target."""
        paid = self._paid.get(target, set())
        return sidecar in paid or (bool(workers) and paid.issuperset(workers))

    @property
    def done(self) -> frozenset[ProcessKey]:
        """Every process that has, for whichever target."""
        return frozenset().union(*self._paid.values())
