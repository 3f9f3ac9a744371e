# SPDX-License-Identifier: Apache-2.0
"""Whether two runs failed for the same cause: a worker's error comes back as text within another one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_compilepool.parity.findings import Side

# What Inductor and Dynamo put around an error of a kernel.
_WRAPPED = re.compile(r"^(InductorError|BackendCompilerFailed|LoweringException|SubprocException): ")
_FROM_A_WORKER = "An exception occurred in a subprocess"
_TRACEBACK = "Traceback (most recent call last):\n"
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_ADVICE = re.compile(r"\n\s*(Set TORCHDYNAMO_VERBOSE|You can suppress this exception|Set TORCH_LOGS)")


@dataclass(frozen=True)
class Cause:
    """What was behind a failure. type: name of the class; text: all of it; kernels: those that failed."""

    type: str
    text: str
    kernels: tuple[str, ...]

    def __str__(self) -> str:
        named = f" (kernel {', '.join(self.kernels)})" if self.kernels else ""
        return f"{self.type}: {self.text}{named}"

    def same_as(self, other: Cause) -> bool:
        """Whether both are one error of one kernel: the class, the words (but for addresses) and the kernels agree."""
        return self._compared == other._compared

    @property
    def _compared(self) -> tuple[object, ...]:
        return self.type, _ADDRESS.sub("0x...", self.text).split(), self.kernels


def cause_of(side: Side) -> Cause | None:
    """Why this side failed, or None. What only wraps the cause, here or in a worker, is taken off."""
    failure = side.answer.failure
    if failure is None:
        return None
    text = _ADVICE.split(f"{failure.type}: {failure.text}", maxsplit=1)[0]
    while _WRAPPED.match(text):
        text = text.partition(": ")[2]
        if text.startswith(_FROM_A_WORKER):
            text = _end_of_traceback(text)
    kind, _, rest = text.partition(":")
    return Cause(kind.rpartition(".")[2], side.shorten(rest.strip()), _kernels(side))


def _end_of_traceback(text: str) -> str:
    """The last error of a traceback in a text: the first line that stands at the margin, and what follows it."""
    lines = text.rpartition(_TRACEBACK)[2].splitlines()
    for number, line in enumerate(lines):
        if line and not line[0].isspace():
            return "\n".join(lines[number:])
    return text


def _kernels(side: Side) -> tuple[str, ...]:
    failed = [job.kernel for job in side.answer.jobs if job.kernel and job.outcome == "failed"]
    failed += [
        asked.name for asked in side.answer.asked if asked.kind == "triton" and asked.route == "failed"
    ]
    return tuple(sorted(set(failed)))
