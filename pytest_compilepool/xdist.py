# SPDX-License-Identifier: Apache-2.0
"""Living with pytest-xdist: who shares, what each worker has for itself, and what is told of one that went down."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Loading this costs every session; what only some need is imported inside.
if TYPE_CHECKING:
    import pytest

    from pytest_compilepool.sessionrecord import Account

_GUARD_SECONDS = 5.0
"""How long the guard of a worker that went down may take: it asks, waits, kills and waits."""


def worker_names(config: pytest.Config) -> tuple[str, str]:
    """xdist's name of this process, such as "gw0", and of the whole run; each "" where it is none of its workers."""
    told: dict[str, Any] = getattr(config, "workerinput", {})
    return str(told.get("workerid", "")), str(told.get("testrunuid", ""))


def sharers(config: pytest.Config) -> int:
    """How many workers there are in this run, each with pools of its own; 1 without xdist. Also known to the controller."""
    told = getattr(config, "workerinput", {}).get("workercount")
    if told is None:
        told = len(config.getoption("tx", None) or ())
    return max(1, int(told))


_STARTED_WITH = "compilepool_started_with"


def tell_worker(workerinput: dict[str, Any], started_with: Mapping[str, str]) -> None:
    """Of what the run was started with, what decides where its files are: a conftest.py may have changed it meanwhile."""
    names = ("COMPILEPOOL_STATE", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME")
    # Their bytes: a name of a file may be no text.
    workerinput[_STARTED_WITH] = {
        name: os.fsencode(started_with[name]) for name in names if name in started_with
    }


def started_with_of_run(config: pytest.Config) -> dict[str, str]:
    """In a worker, what its controller has told it so; else nothing."""
    told = getattr(config, "workerinput", {}).get(_STARTED_WITH)
    return {name: os.fsdecode(value) for name, value in told.items()} if isinstance(told, dict) else {}


def own_caches(worker: str) -> dict[str, str]:
    """Variables that give a worker cache folders of its own, below those that are in effect; they are made by their users.

    worker: xdist's name of it, such as "gw0". Tests that count cache hits would see those of the other workers. The folders
    are the same in the next run, so they stay warm; below a tox environment's name, where there is one: its torch differs.
    """
    from pytest_compilepool.torch_compat import cache_roots

    environment = os.environ.get("TOX_ENV_NAME", "")
    below = Path(environment if _is_a_name(environment) else "") / worker
    return {name: str(Path(root) / below) for name, root in cache_roots().items()}


def own_gpu(worker: str) -> dict[str, str]:
    """The variable that leaves a worker one GPU of those that are visible, in turn; nothing where there are fewer than two.

    worker: xdist's name of it. It must be set before CUDA is initialised, see `gpus_are_taken`.
    """
    from pytest_compilepool.resources import gpu_names

    variable, names = gpu_names()
    number = re.fullmatch(r"gw(\d+)", worker)
    if number is None or len(names) < 2:
        return {}
    return {variable: names[int(number[1]) % len(names)]}


def gpus_are_taken() -> bool:
    """Whether this process has initialised CUDA, which reads those variables once."""
    cuda = sys.modules.get("torch.cuda")
    return cuda is not None and bool(cuda.is_initialized())


def not_grouped(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """In a worker of xdist's with `--dist loadgroup`: whether it groups. items: as they will be run.

    xdist 3.8 writes the group into the private `_nodeid` of each item, which pytest 9.2 does not read any more
    (pytest-dev/pytest-xdist#1386): the tests of one group then run in several workers.
    """
    if sharers(config) < 2 or not hasattr(config, "workerinput") or not config.getoption("loadgroup", False):
        return []
    grouped = [item for item in items if item.get_closest_marker("xdist_group")]
    if all(item.nodeid.endswith(f"@{'_'.join(sorted(_groups(item)))}") for item in grouped):
        return []
    from importlib.metadata import version

    text = (
        f"--dist loadgroup does not group with pytest {version('pytest')} and pytest-xdist {version('pytest-xdist')}: "
        f"{len(grouped)} tests with @pytest.mark.xdist_group were spread over all workers; to run a test alone there is "
        "@pytest.mark.compilepool_exclusive"
    )
    return [text]


def _groups(item: pytest.Item) -> set[str]:
    """As xdist reads its markers."""
    return {
        str(mark.args[0] if mark.args else mark.kwargs.get("name", "default"))
        for mark in item.iter_markers("xdist_group")
    }


def told_to_controller(config: pytest.Config, errors: list[str]) -> None:
    """What a worker has to say at its end travels with its last message."""
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None and errors:
        from pytest_compilepool.report.terminal import ERRORS
        from pytest_compilepool.words import sendable

        output[ERRORS] = [sendable(text) for text in errors]


def _is_a_name(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", text))


def told_of(run: str) -> list[str]:
    """Lines about each worker of a run that went down; its record is removed, since it has been told of.

    run: xdist's identifier of the run. Raises nothing: where there is no place for records there are none.
    """
    from pytest_compilepool import places, sessionrecord

    try:
        folder = places.own_folder()
    except places.PlaceError:
        return []
    deadline = time.monotonic() + _GUARD_SECONDS
    lines: list[str] = []
    for path in sessionrecord.records(folder):
        account = _dead(path, run)
        while account is not None and not account.died and time.monotonic() < deadline:
            time.sleep(0.05)  # a file tells nobody that it has grown
            account = _dead(path, run)
        if account is None:
            continue
        lines += _said(account)
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):  # where somebody else still has a record or a lock
        sessionrecord.remove_if_empty(folder)
    return lines


def _dead(path: Path, run: str) -> Account | None:
    """The account of a worker of that run that has ended otherwise than it should; None for any other."""
    from pytest_compilepool import places, sessionrecord

    try:
        account = sessionrecord.read_account(path)
    except places.PlaceError:
        return None
    mine = account.owner.run == run and not account.finished
    return account if mine and account.owner.is_gone else None


def _said(account: Account) -> list[str]:
    from pytest_compilepool.words import counted

    owner = account.owner
    where = account.running or "no test"
    ended = account.died.get("ended")
    left = account.died.get("left")
    line = f"{owner.worker} (pid {owner.pid}) went down in {where}"
    if account.attempt > 1:
        line += f", attempt {account.attempt}"
    if not account.died:
        line += f"; whether it left processes is not known {_GUARD_SECONDS:g} s later: compilepool reap"
    elif isinstance(ended, list):
        line += f"; {counted(len(ended), 'process', 'processes')} still there then, and ended"
    lines = [line]
    if isinstance(left, list) and left:
        lines.append(f"  still there after SIGKILL: {', '.join(map(str, left))}")
    if account.timeout:
        lines += [
            "  its compile pool when the time was up:",
            *(f"  {one}" for one in account.timeout.splitlines()),
        ]
    return lines
