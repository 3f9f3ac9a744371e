# SPDX-License-Identifier: Apache-2.0
"""`compilepool doctor --vllm`: what this package would do in the vLLM that is here, and what it did, by its events.

Nothing here imports vLLM or starts anything.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pytest_compilepool import vllm_compat
from pytest_compilepool.torch_compat import Capabilities
from pytest_compilepool.vllm.events import VllmEvent, read_events
from pytest_compilepool.vllm.settings import PROCESSES, Settings, decide, from_environment, why_one

GROUP, NAME = "vllm.general_plugins", "compilepool"
_ALLOWED = "VLLM_PLUGINS"


class BadEvents(ValueError):
    """A file of which no table can be made. Its text is a sentence for the user."""


def findings(able: Capabilities | None, events: list[VllmEvent] | None) -> dict[str, Any]:
    """As plain values. able: what this torch can do, None without one; events: what a file had, or None.

    Raises BadSetting for a variable that cannot be followed.
    """
    version = vllm_compat.vllm_version()
    known = version is not None and vllm_compat.is_known(version)
    settings = from_environment()
    found: dict[str, Any] = {
        "version": version,
        "known": known,
        "releases": [vllm_compat.FIRST, vllm_compat.LAST],
        "hooks": [asdict(hook) for hook in vllm_compat.hooks_of(version)] if version and known else [],
        "settings": None if settings is None else asdict(settings),
        "decision": _decision(settings, able),
        "plugin": _plugin(os.environ),
    }
    if events is not None:
        found["events"] = [asdict(event) for event in events]
    return found


def _decision(settings: Settings | None, able: Capabilities | None) -> dict[str, Any] | None:
    """For an engine with one worker on this host."""
    if settings is None or able is None:
        return None
    decision = decide(settings, 1, able)
    why = decision.why if decision.processes > 1 else why_one(decision)
    return {"processes": decision.processes, "why": why}


def _plugin(environ: Mapping[str, str]) -> dict[str, Any]:
    """The entry point that vLLM calls: what it is, None where it is not installed; and whether vLLM may call it."""
    entries = importlib.metadata.entry_points(group=GROUP, name=NAME)
    allowed = environ.get(_ALLOWED)
    return {
        "entry_point": next((entry.value for entry in entries), None),
        # As vLLM reads it: no blanks are taken off, and an empty text allows none.
        "allowed": allowed is None or NAME in allowed.split(","),
        "allowed_by": allowed,
    }


def events_in(path: str) -> list[VllmEvent]:
    """What a file has, one or more. Raises BadEvents."""
    try:
        found = read_events(path)
    except OSError as error:
        raise BadEvents(f"--events: {path!r} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a path that none can be, as one with a zero byte
        raise BadEvents(f"--events: {path!r} cannot be read: {error}") from None
    if not found:
        raise BadEvents(
            f"--events: {path!r} holds no event; allowed: a file that VLLM_COMPILE_POOL_EVENTS named in a start of vLLM"
        )
    return found


# -- as text -----------------------------------------------------------------------------------------------


def as_text(found: Mapping[str, Any]) -> list[str]:
    """The same as lines for a terminal."""
    rows = {
        "vLLM": found["version"] or "not installed",
        "known": _known(found),
        "hooks": ", ".join(map(_hook, found["hooks"])) or "-",
        "asked for": _asked(found["settings"]),
        "processes": _processes(found),
        "plugin": _entry(found["plugin"]),
    }
    lines = ["What happens in vLLM here", *(f"  {name:<24}{text}" for name, text in rows.items())]
    if "events" in found:
        lines += ["", "What happened, by the events (seconds since the first)", *_table(found["events"])]
    return lines


def _known(found: Mapping[str, Any]) -> str:
    first, last = found["releases"]
    if found["version"] is None:
        return "-"
    return (
        f"yes, one of {first} to {last}" if found["known"] else f"no, none of {first} to {last}: left alone"
    )


def _hook(hook: Mapping[str, Any]) -> str:
    return f"{hook['owner']}.{hook['name']}{' (captures)' if hook['captures'] else ''}"


def _asked(settings: Mapping[str, Any] | None) -> str:
    if settings is None:
        return f"nothing: {PROCESSES} is not set"
    return (
        f"{PROCESSES}={settings['processes']}, ready within {settings['ready_timeout']:g} s, "
        f"a job within {settings['job_timeout']:g} s, events to {settings['events'] or 'no file'}"
    )


def _processes(found: Mapping[str, Any]) -> str:
    if found["settings"] is None:
        return "no pool"
    if not found["plugin"]["allowed"]:
        return f"no pool: {_ALLOWED} keeps vLLM from loading {NAME}"
    decision = found["decision"]
    return (
        "cannot be told without torch" if decision is None else f"{decision['processes']} ({decision['why']})"
    )


def _entry(plugin: Mapping[str, Any]) -> str:
    if plugin["entry_point"] is None:
        return f"not installed: there is no {NAME!r} in {GROUP}"
    allowed = plugin["allowed_by"]
    said = f"{_ALLOWED} is not set" if allowed is None else f"{_ALLOWED}={allowed}"
    return f"{plugin['entry_point']}, {'allowed' if plugin['allowed'] else 'not allowed'}: {said}"


def _table(events: list[dict[str, Any]]) -> list[str]:
    rows = [["at", "pid", "what", "state", "took", "detail"]]
    for event in events:
        took = event["took"]
        rows.append(
            [
                f"{event['at'] - events[0]['at']:.3f}",
                str(event["pid"]),
                _printable(event["what"]),
                _printable(event["state"]),
                "-" if took is None else f"{took:.3f}",
                _printable(" ".join(f"{name}={value}" for name, value in event["detail"].items())),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = (0, 1, 4)
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if number in numbers else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _printable(text: str) -> str:
    """Without what a terminal takes as a command, or cannot show: the file may be anybody's."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
