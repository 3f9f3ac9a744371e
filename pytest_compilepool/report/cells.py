# SPDX-License-Identifier: Apache-2.0
"""The cell of a session: what its verdicts, its environment and its manifest make together."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool.conformance import facts
from pytest_compilepool.conformance.definition import MANIFEST
from pytest_compilepool.conformance.manifest import MODES, Feature, read_manifest
from pytest_compilepool.conformance.shards import in_shard
from pytest_compilepool.conformance.subjects import DEFAULT
from pytest_compilepool.conformance.verdict import UNTRIED, Verdict
from pytest_compilepool.matrix import runinfo, statuses
from pytest_compilepool.matrix.cell import Cell, Result
from pytest_compilepool.matrix.merge import ELSEWHERE
from pytest_compilepool.matrix.signature import signature
from pytest_compilepool.report.conformance import Verdicts

_DIED = "the process that tried it has died"


@dataclass(frozen=True)
class Asked:
    """Which features: `requirements` names the pool, the rest which part of its suite."""

    requirements: str
    mode: str
    group: tuple[str, ...] | None
    shard: str | None


@dataclass(frozen=True)
class RunInfo:
    """run: of which environment a cell is; timings: of one pool, seconds by step."""

    run: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)


def run_info(config: pytest.Config, asked: Asked, began: float) -> RunInfo:
    """The pool is asked now, which takes seconds. began: `time.time()`."""
    told, timings, missing = facts.ask(asked.requirements or DEFAULT)
    run: dict[str, Any] = {
        **runinfo.machine(),
        **told,
        "pytest": pytest.__version__,
        "plugins": _plugins(config),
        "started": runinfo.as_text(began),
    }
    if missing:
        run["facts_missing"] = missing
    return RunInfo(run, timings)


def made(found: Verdicts, info: RunInfo, asked: Asked, complete: bool) -> Cell:
    """complete: whether the run came to its end."""
    results = {name: _result(verdict, found) for name, verdict in found.verdicts.items()}
    for name in _lost(found):
        results[name] = Result(name, "ERROR", "ERROR", reason=_DIED, signature=_DIED)
    return Cell(
        suite=_suite_version(),
        run={**found.run_info, **info.run},
        mode=asked.mode,
        complete=complete,
        shard=asked.shard or "",
        results=results,
        not_run=_not_run(found.folders, results, asked),
        timings=dict(info.timings),
    )


def _lost(found: Verdicts) -> list[str]:
    """Features of the tests whose process died, as far as their suite is known."""
    if not found.lost:
        return []
    tests = {place: name for folder in found.folders for place, name in _tests(Path(folder))}
    parts = [nodeid.split("::") for nodeid in found.lost]
    places = [(Path(one[0]).name, one[-1].partition("[")[0]) for one in parts]
    return [tests[place] for place in places if place in tests]


def _tests(folder: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """File and function of each, with its feature: read, not imported, for a scenario may import anything."""
    for file in folder.glob("test_*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for call in getattr(node, "decorator_list", ()):
                match call:
                    case ast.Call(func=ast.Name(id="feature"), args=[ast.Constant(value=str(name))]):
                        yield (file.name, node.name), name  # type: ignore[attr-defined]


def _result(verdict: Verdict, found: Verdicts) -> Result:
    untried = verdict.status in UNTRIED
    result = Result(
        id=verdict.feature,
        status=statuses.of(verdict),
        got="" if untried else verdict.status,
        expected=verdict.expected,
        bug=verdict.bug,
        reason=verdict.text,
        requirement=verdict.requirement,
        duration=verdict.seconds,
        attempts=verdict.attempts,
        signature="" if untried or verdict.status == "PASS" else signature(verdict.text),
        leaks=list(found.leaks.get(verdict.feature, ())),
        counters=verdict.counters,
        notes=verdict.notes,
    )
    if result.leaks and result.status == "PASS":
        result.status = result.got = "LEAK"
    return result


def _not_run(folders: Iterable[str], results: Mapping[str, Result], asked: Asked) -> dict[str, str]:
    every: dict[str, Feature] = {}
    for folder in folders:
        every |= _manifest(folder)
    why = {name: _why(feature, asked) for name, feature in every.items()}
    mine = in_shard([name for name, text in why.items() if not text], asked.shard)
    left = {
        name: text or ("deselected, or the run was cut short" if name in mine else ELSEWHERE)
        for name, text in why.items()
    }
    return {name: text for name, text in left.items() if name not in results}


@cache
def _manifest(folder: str) -> dict[str, Feature]:
    return read_manifest(Path(folder) / MANIFEST)


def _why(feature: Feature, asked: Asked) -> str:
    """Why nobody asked for it, or an empty text."""
    if MODES.index(feature.mode) > MODES.index(asked.mode):
        return f"runs in the mode {feature.mode}"
    if asked.group is not None and feature.group not in asked.group:
        return f"the group {feature.group} was not asked for"
    return ""


def _plugins(config: pytest.Config) -> dict[str, str]:
    found = {dist.project_name: dist.version for _, dist in config.pluginmanager.list_plugin_distinfo()}
    return dict(sorted(found.items()))


def _suite_version() -> str:
    try:
        return version("pytest-compilepool")
    except PackageNotFoundError:
        return ""
