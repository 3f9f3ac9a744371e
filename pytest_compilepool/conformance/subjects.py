# SPDX-License-Identifier: Apache-2.0
"""Loading the class that says which pool is tried and what it can do, and asking it in an interpreter of its own."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_compilepool import sessionrecord
from pytest_compilepool.conformance.interpreters import import_path, run_interpreter
from pytest_compilepool.conformance.order import ANSWER, LOG, ORDER
from pytest_compilepool.fresh.ending import die_with
from pytest_compilepool.torch_compat.installed import POOL_MODULES

DEFAULT = "pytest_compilepool.suites.requirements:TorchPool"

_PROBE_SECONDS = 120.0
_PROBE = (
    "import json, pathlib, sys; "
    "order = json.loads(pathlib.Path(sys.argv[1], 'order.json').read_text(encoding='utf-8')); "
    "sys.path[:] = order['path']; from pytest_compilepool.conformance import subjects; "
    "subjects.probe(sys.argv[1], int(sys.argv[2]), order)"
)


class BadRequirements(ValueError):
    """The requirements class cannot be had, or lacks something; the text says what and where."""


@dataclass(frozen=True)
class Subject:
    """The pool that is tried. holds: property -> whether it holds here; reasons: of each property, what it needs;
    preload: modules with which its interpreters begin; machine: properties that do not hold since the machine, or what is
    installed on it, lacks something: nothing is known of the pool then."""

    spec: str
    name: str
    versions: dict[str, str]
    holds: dict[str, bool]
    reasons: dict[str, str]
    preload: list[str]
    machine: list[str] = field(default_factory=list)

    def lacking(self, needs: Iterable[str]) -> tuple[str, bool]:
        """The first of these properties that does not hold, and whether it is the pool that lacks it; or an empty text."""
        need = next((need for need in needs if not self.holds[need]), "")
        return need, bool(need) and need not in self.machine

    def lacks(self, needs: Iterable[str]) -> str:
        """Why a feature with these needs cannot be tried here, or an empty text."""
        return next((self.reasons[need] for need in needs if not self.holds[need]), "")

    def preload_for(self, needs: Iterable[str]) -> list[str]:
        """Modules with which the interpreter of a feature with these needs begins.

        Whatever the pool is, the scenario itself uses torch's Inductor where it compiles kernels or looks at settings.
        """
        return self.preload or (list(POOL_MODULES) if {"kernels", "inductor_config"} & {*needs} else [])


def load(spec: str) -> Any:
    """The class that `module:Class` names. Raises BadRequirements."""
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise BadRequirements(f"{spec!r} is not allowed; allowed: module:Class")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:
        raise BadRequirements(
            f"{spec!r}: {module} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if found is None:
        raise BadRequirements(f"{spec!r}: {module} has no {name}")
    if not inspect.isclass(found) or not hasattr(found, "make"):
        raise BadRequirements(f"{spec!r} is no class with a method make(processes, idle_seconds)")
    return found


def ask(spec: str, needs: Iterable[str]) -> Subject:
    """Have a fresh interpreter look at the pool: this one stays without torch. Raises BadRequirements.

    needs: properties that the class must have.
    """
    with tempfile.TemporaryDirectory(
        prefix=sessionrecord.folder_prefix(), ignore_cleanup_errors=True
    ) as folder:
        order = {"path": import_path(), "spec": spec, "needs": sorted(set(needs))}
        (Path(folder) / ORDER).write_text(json.dumps(order), encoding="utf-8")
        status, said = _have_it_asked(Path(folder))
        try:
            told = json.loads((Path(folder) / ANSWER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            if status is None:
                raise BadRequirements(f"{spec!r} gave no answer within {_PROBE_SECONDS:g} s") from None
            raise BadRequirements(f"{spec!r} could not be asked: status {status}: {said}") from None
    if "error" in told:
        raise BadRequirements(told["error"])
    return Subject(spec, **told)


def _have_it_asked(folder: Path) -> tuple[int | None, str]:
    """Run the probe in that folder and end whatever it leaves. Returns its status, None if that was late, and its last
    line."""
    status = run_interpreter(_PROBE, folder, _PROBE_SECONDS)
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return status, (lines or ["it said nothing"])[-1]


def probe(folder: str, parent: int, order: dict[str, Any]) -> None:
    """In the fresh interpreter: answer into the folder. parent: pid of who waits for it."""
    die_with(parent)
    try:
        told = _look(order["spec"], order["needs"])
    except BadRequirements as error:
        told = {"error": str(error)}
    part = Path(folder, f"{ANSWER}.part")
    part.write_text(json.dumps(told), encoding="utf-8")
    part.replace(Path(folder, ANSWER))
    # What the class has started, a thread or a process, is not waited for.
    os._exit(0)


def _look(spec: str, needs: list[str]) -> dict[str, Any]:
    kind = load(spec)
    # A plain True or False will do as well.
    missing = [
        need for need in needs if not isinstance(inspect.getattr_static(kind, need, None), (property, bool))
    ]
    if missing:
        file = inspect.getsourcefile(kind) or "?"
        raise BadRequirements(
            f"{spec!r} ({file}:{inspect.getsourcelines(kind)[1]}) lacks the property {', '.join(missing)} "
            "(True or False will do); a subclass of pytest_compilepool.suites.requirements.Requirements has them all"
        )
    try:
        subject = kind()
        holds = {need: bool(getattr(subject, need)) for need in needs}
        machine = _of_the_machine(subject, needs)
        name = _plain(subject.name)
        preload = _modules(getattr(subject, "preload", ()))
        versions = {_plain(key): _plain(value) for key, value in subject.versions.items()}
    except (Exception, SystemExit) as error:
        # That there is no torch is a sentence by itself, and no fault of the class.
        of_torch = type(error).__name__ == "TorchUnavailable"
        told = str(error) if of_torch else f"{spec!r} cannot be asked: {type(error).__name__}: {error}"
        raise BadRequirements(told) from None
    reasons = {need: _reason(kind, need) for need in needs}
    return {
        "name": name,
        "versions": versions,
        "holds": holds,
        "reasons": reasons,
        "preload": preload,
        "machine": machine,
    }


def _of_the_machine(subject: Any, needs: list[str]) -> list[str]:
    table = dict(getattr(subject, "of_the_machine", {}))
    return [need for need in needs if not all(bool(getattr(subject, one)) for one in table.get(need, ()))]


def _modules(value: object) -> list[str]:
    """What a class gives as `preload`. Raises TypeError."""
    if isinstance(value, (tuple, list)) and all(isinstance(name, str) for name in value):
        return list(value)
    raise TypeError(f"preload = {value!r} is not allowed; allowed: a tuple of names of modules")


def _plain(value: Any) -> str:
    """As one line that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def _reason(kind: Any, need: str) -> str:
    found = [vars(base)[need] for base in kind.__mro__ if isinstance(vars(base).get(need), property)]
    text = next((told for one in found if (told := inspect.getdoc(one))), need)
    return f"{need}: {text.splitlines()[0].rstrip('.')}"
