# SPDX-License-Identifier: Apache-2.0
"""What an interpreter is told to do, and the files through which that happens."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

ORDER, ANSWER, LOG, STACKS = "order.json", "answer.json", "log.txt", "stacks.txt"

BOOT = (
    "import json, pathlib, sys; "
    "sys.path[:] = json.loads(pathlib.Path(sys.argv[1], 'order.json').read_text(encoding='utf-8'))['path']; "
    "from pytest_compilepool.conformance import child; child.main(sys.argv[1], int(sys.argv[2]))"
)
"""Arguments: its folder, and the pid of who asks. With the same import path as that one; no variable of the environment
is touched for it."""


@dataclass(frozen=True)
class Order:
    """What an interpreter is to do. module, function: of the scenario; requirements: `module:Class`; mutant:
    `module:function` that changes the pool, or an empty text; path: import path; limit: seconds; normally: the
    interpreter ends as a program does that has run to its end, with all that a pool does then; shared: a folder for what
    the features of one run share, or an empty text; joint: the socket's name through which one feature after the other
    comes to an interpreter that several share, or an empty text."""

    feature: str
    module: str
    function: str
    requirements: str
    path: list[str]
    limit: float
    mutant: str = ""
    arguments: dict[str, str] | None = None
    normally: bool = False
    shared: str = ""
    joint: str = ""


def write_order(order: Order, folder: Path) -> None:
    """Put it where the interpreter looks for it."""
    (folder / ORDER).write_text(json.dumps(asdict(order)), encoding="utf-8")
