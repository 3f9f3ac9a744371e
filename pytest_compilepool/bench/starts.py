# SPDX-License-Identifier: Apache-2.0
"""One measurement: in a fresh interpreter, over empty caches of its own, bounded; nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_compilepool import resources, sessionrecord
from pytest_compilepool.conformance.interpreters import import_path
from pytest_compilepool.fresh.callables import RESERVED, pack
from pytest_compilepool.fresh.order import Answer, Order
from pytest_compilepool.fresh.run import Folders, FreshFailed, run

# Whoever asks has settings of torch and of Triton that are not to decide what is found; but where Triton's tools are
# is the machine's business.
_NOT_HANDED_ON = (
    "TORCHINDUCTOR_",
    "TORCHDYNAMO_",
    "TORCH_",
    "TRITON_",
    "VLLM_",
    "COMPILEPOOL_",
    "PYTHONWARNINGS",
)
_PLACES = "_PATH"


class StartFailed(RuntimeError):
    """A measurement came to nothing. Its text is one line that says why."""


@dataclass(frozen=True)
class Start:
    """What came of it. answer: of the interpreter; told: what the function in it has written; folders: its caches, there
    while the start is open."""

    answer: Answer
    told: dict[str, Any]
    folders: Folders


@contextlib.contextmanager
def started(
    function: Callable[..., None],
    arguments: Mapping[str, Any],
    *,
    limit: float,
    processes: int = 1,
    prime: str = "",
    target: str | None = None,
) -> Iterator[Start]:
    """Have a fresh interpreter call a function with the name of a file that it writes JSON to, and with arguments.

    processes: of the pool that is there, ready, when it is called, 1 for none; prime: for which target that pool is
    primed; target: a GPU that is not there and is stubbed; limit: seconds for all of it. Raises StartFailed.
    """
    # By its name whoever cleans up after this process finds it.
    with tempfile.TemporaryDirectory(
        prefix=sessionrecord.folder_prefix("bench"), ignore_cleanup_errors=True
    ) as name:
        place = Path(name)
        file = place / "told.json"
        order = Order(
            pack((function, (str(file),), dict(arguments)), "compilepool bench"),
            tuple(import_path()),
            processes=processes,
            prime=prime,
            target=target,
            ready_timeout=limit,
            limit=limit,
        )
        folders = Folders.below(place / "caches", place / "run")
        try:
            # What a sidecar that is ended leaves in the folder for temporary files is removed with all else.
            answer = run(order, folders, {**hermetic(os.environ), "TMPDIR": name})
        except FreshFailed as error:
            raise StartFailed(_of_log(str(error), folders)) from None
        why = _why(answer)
        if why:
            raise StartFailed(_one_line(why))
        yield Start(answer, json.loads(file.read_text(encoding="utf-8")), folders)


def hermetic(outer: Mapping[str, str]) -> dict[str, str | None]:
    """The variables that such an interpreter is not to have, as `fresh.run` takes them."""
    return {
        name: None
        for name in outer
        if name.startswith(_NOT_HANDED_ON) and name not in RESERVED and not name.endswith(_PLACES)
    }


def machine() -> dict[str, Any]:
    """What is known of this machine without torch: its kind, Python, how many CPUs this process may use, and how many
    processes wanted one in the last minute (its load average)."""
    cpus = resources.usable_cpus()
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": cpus.count,
        "cpus_source": cpus.source,
        "load": round(os.getloadavg()[0], 2),
    }


def _why(answer: Answer) -> str:
    failure = answer.failure
    if failure is None:
        return "; ".join(answer.faults)
    if failure.type in ("BadInput", "OfflineUnsupported", "TorchUnavailable"):
        return failure.text
    return f"{failure.type} in stage {failure.stage!r}: {failure.text}"


def _of_log(text: str, folders: Folders) -> str:
    """How an interpreter ended, and the last that it said; where its time was over that is only where it was."""
    how, _, log = text.partition(f"; its order and log are in {folders.run}, the end of the log:")
    return how if "was still at it" in how else _one_line(f"{how}\n{log}")


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    told = (
        lines[0] if len(lines) == 1 else f"{lines[0]} [...] {lines[-1]}" if lines else "no reason was given"
    )
    return told if len(told) <= 400 else f"{told[:396]} ..."
