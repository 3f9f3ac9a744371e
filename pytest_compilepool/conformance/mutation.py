# SPDX-License-Identifier: Apache-2.0
"""Trying mutants: each must be noticed by every feature that it names, and must not break everything."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool.conformance.feature import ATTRIBUTE as FEATURE
from pytest_compilepool.conformance.forks import ForkServers
from pytest_compilepool.conformance.manifest import Feature, needs_of
from pytest_compilepool.conformance.mutant import ATTRIBUTE, Mutant
from pytest_compilepool.conformance.runner import run_feature
from pytest_compilepool.conformance.subjects import Subject, ask
from pytest_compilepool.conformance.verdict import Verdict
from pytest_compilepool.words import show

CONTROL = "warm.ready-when-a-worker-answered"
"""A mutant under which this feature fails, too, has broken the pool: what notices it shows nothing."""

Scenarios = Mapping[str, tuple[str, str]]


class BadMutants(ValueError):
    """The folder of mutants is not as it must be; the text says what is wrong."""


@dataclass(frozen=True)
class Result:
    """What came of one mutant. killed: features that noticed it, with their verdicts; survived: those that did not;
    untested: those that cannot be tried here, and why; broken: the control feature failed, and what it said."""

    mutant: Mutant
    killed: dict[str, Verdict]
    survived: tuple[str, ...]
    untested: dict[str, str]
    broken: str = ""

    @property
    def good(self) -> bool:
        """Noticed by all that are to notice it, and not because nothing works any more."""
        return bool(self.killed) and not self.survived and not self.broken

    @property
    def tried(self) -> bool:
        """Whether there was a feature that could be tried here."""
        return bool(self.killed or self.survived)


def read_mutants(folder: Path, features: Mapping[str, Feature]) -> list[Mutant]:
    """The mutants of every module of a package. folder: of the package; its parent gets onto the import path.

    Raises BadMutants: no package there, a module that cannot be imported, an unknown feature, a name twice.
    """
    if not os.path.isfile(folder / "__init__.py"):  # Path's raises for a name that no file can have
        raise BadMutants(f"{show(str(folder))} is no package of mutants: it has no __init__.py")
    sys.path.insert(0, str(folder.resolve().parent))
    found: dict[str, Mutant] = {}
    for file in sorted(folder.glob("*.py")):
        if file.stem == "__init__":
            continue
        try:
            module = importlib.import_module(f"{folder.resolve().name}.{file.stem}")
        except (Exception, SystemExit) as error:
            raise BadMutants(f"{file}: cannot be imported: {type(error).__name__}: {error}") from error
        for value in list(vars(module).values()):
            one = getattr(value, ATTRIBUTE, None)
            if not isinstance(one, Mutant) or value.__module__ != module.__name__:
                continue
            unknown = [name for name in one.kills if name not in features]
            if unknown or not one.kills:
                raise BadMutants(
                    f"{file}: {one.id} kills {', '.join(unknown) or 'nothing'}: not in the manifest"
                )
            if one.id in found:
                raise BadMutants(f"{file}: {one.id} is there twice")
            found[one.id] = one
    return list(found.values())


def scenarios(folder: Path, package: str) -> dict[str, tuple[str, str]]:
    """Where the scenario of each feature is: module and function, by feature. folder, package: of the suite."""
    found = {}
    for file in sorted(folder.glob("test_*.py")):
        module = importlib.import_module(f"{package}.{file.stem}")
        for name, value in vars(module).items():
            identifier = getattr(value, FEATURE, None)
            if identifier is not None:
                found[identifier] = (module.__name__, name)
    return found


def try_mutant(
    one: Mutant,
    subject: Subject,
    features: Mapping[str, Feature],
    where: Scenarios,
    stop: threading.Event | None = None,
    servers: ForkServers | None = None,
) -> Result:
    """Try it on the features that it names, and on the control. subject: its pool, without the wrong change; stop: see
    `run_feature`; servers: from which their interpreters are forked; without, each is a new one."""
    untested = {name: why for name in one.kills if (why := subject.lacks(features[name].needs))}

    def tried(name: str) -> Verdict:
        preload = subject.preload_for(features[name].needs)
        forks = servers.having(preload) if servers is not None and preload else None
        return run_feature(features[name], *where[name], one.requirements, one.place, stop, forks)

    verdicts = {name: tried(name) for name in one.kills if name not in untested}
    killed = {name: verdict for name, verdict in verdicts.items() if verdict.status != "PASS"}
    survived = tuple(name for name in verdicts if name not in killed)
    # What ended the interpreter, or kept the scenario from being tried, was not a promise that is not kept.
    odd = [verdict for verdict in verdicts.values() if verdict.status not in ("PASS", "FAIL", "TIMEOUT")]
    broken = f"{odd[0].status}: {odd[0].text}" if odd else ""
    if not broken and CONTROL not in one.kills and killed:
        control = tried(CONTROL)
        broken = "" if control.status == "PASS" else f"{control.status}: {control.text}"
    return Result(one, killed, survived, untested, broken)


def try_all(
    mutants: Iterable[Mutant],
    features: Mapping[str, Feature],
    where: Scenarios,
    at_once: int,
    tell: Callable[[Result], None],
) -> list[Result]:
    """Try all of them, so many at the same time. tell: called with each result as it comes, in the order given.

    Raises BadRequirements where a pool cannot be had. What it is interrupted by ends all that is running first.
    """
    mutants = list(mutants)
    needs = needs_of(features.values())
    pools = {spec: ask(spec, needs) for spec in sorted({one.requirements for one in mutants})}
    results = []
    threads, stop = ThreadPoolExecutor(at_once), threading.Event()
    # One at a time has it, and the thread that started it may not end before it does.
    servers: dict[int, ForkServers] = {}

    def try_one(one: Mutant) -> Result:
        mine = servers.setdefault(threading.get_ident(), ForkServers())
        return try_mutant(one, pools[one.requirements], features, where, stop, mine)

    try:
        for result in threads.map(try_one, mutants):
            tell(result)
            results.append(result)
    finally:
        stop.set()
        threads.shutdown(cancel_futures=True)
        for each in servers.values():
            each.close()
    return results


def without_mutant(features: Iterable[str], mutants: Iterable[Mutant]) -> list[str]:
    """Features that no mutant names: nobody has shown that they can fail. But for those of `RECORDED`."""
    named = {name for one in mutants for name in one.kills}
    return [name for name in features if name not in named and name.partition(".")[0] not in RECORDED]


RECORDED = ("vllm",)
"""Groups whose features are shown to fail on falsified recordings (`tests/vllm/test_suite_notices.py`): a mutant of an
engine would take minutes."""
