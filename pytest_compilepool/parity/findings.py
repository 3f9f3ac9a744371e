# SPDX-License-Identifier: Apache-2.0
"""What a comparison found, and the two sides that it compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_compilepool.fresh.order import Answer
from pytest_compilepool.fresh.run import Folders
from pytest_compilepool.parity.artifacts import Artifact

CANDIDATE = "triton_"
"""The name of a kernel that is made to be measured only: some of them the parent compiles by design."""


@dataclass(frozen=True)
class Finding:
    """One difference, or one thing worth knowing.

    kind: kernel, source, launch, ptx, ptxas, code, hash, output, counter, parallel, error, config, cpp, determinism, run;
    what: the kernel, output or counter; text: what differs, first the one side, then the other;
    fails: whether the two sides are not the same because of it.
    """

    kind: str
    what: str
    text: str
    fails: bool = True

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}: {self.text}"


@dataclass(frozen=True)
class Side:
    """One mode's run. label: `1 process`, `4 processes, subprocess`; outputs: for each call its `output`,
    `forms` (what of it was lost on the way, by where it is) and `changed` (what of the arguments can be compared, as the
    call left it); None where it raised. state: of the module that was called, after the last call."""

    label: str
    answer: Answer
    folders: Folders
    artifacts: list[Artifact]
    outputs: list[dict[str, Any]] | None
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def parallel(self) -> bool:
        """Whether this side had a pool."""
        return self.answer.processes > 1

    @property
    def kernels(self) -> dict[str, str]:
        """The Triton kernels that were compiled: name by key of the source."""
        return {artifact.source: artifact.kernel for artifact in self.artifacts}

    def shorten(self, text: str) -> str:
        """A text without what differs between two sides by construction: their folders."""
        return text.replace(str(self.folders.run), "<run>").replace(str(self.place), "<folder>")

    @property
    def place(self) -> Path:
        """The folder that holds everything of it."""
        return self.folders.run.parent
