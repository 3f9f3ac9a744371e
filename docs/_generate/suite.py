# SPDX-License-Identifier: Apache-2.0
"""What the conformance suite is defined by: features, requirements, expectations, statuses, and the schema of a cell."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from _generate.writing import capital, code, doc, link, table
from pytest_compilepool.conformance.definition import EXPECTATIONS, MANIFEST
from pytest_compilepool.conformance.expectations import Expectation, read_expectations
from pytest_compilepool.conformance.manifest import LIMIT, Feature, read_manifest
from pytest_compilepool.matrix.statuses import LETTERS, MEANINGS
from pytest_compilepool.suite import bundled
from pytest_compilepool.suites.requirements import Requirements

SCHEMA = Path(__file__).resolve().parents[2] / "pytest_compilepool" / "matrix" / "schema" / "cell-2.json"


def _features() -> dict[str, Feature]:
    return read_manifest(bundled() / MANIFEST)


def _requirement(name: str) -> str:
    """What a property of the requirements class says that it is."""
    return doc(inspect.getattr_static(Requirements, name)).rstrip(".")


def features(page: Path) -> str:
    """Every promise, by group."""
    parts: list[str] = []
    group = ""
    known = _features()
    expected = _expected(known)
    for feature in known.values():
        if feature.group != group:
            group = feature.group
            parts.append(f"## {group}")
        parts += [f"### `{feature.id}`", f"{feature.title}.", f"> {feature.must}", "\n".join(_facts(feature))]
        if feature.id in expected:
            releases = ", ".join(_torch(one) for one in expected[feature.id])
            parts[-1] += f"\n- [Known defect](expectations.md#{feature.id.replace('.', '')}) of {releases}"
    return "\n\n".join(parts)


def _facts(feature: Feature) -> Iterator[str]:
    limit = "" if feature.limit == LIMIT else f", at most {feature.limit:g} seconds"
    yield f"- Since {feature.since}, mode {feature.mode}{limit}"
    if feature.needs:
        yield f"- Needs {code(feature.needs)}"
    if feature.seen:
        yield f"- Seen not to be kept: {', '.join(map(link, feature.seen))}"


def requirements(page: Path) -> str:
    """Every property that a feature needs."""
    needed = {need for feature in _features().values() for need in feature.needs}
    return table(
        ["requirement", "holds where there is this"],
        [[f"`{name}`", capital(_requirement(name))] for name in sorted(needed)],
    )


def expectations(page: Path) -> str:
    """Every known defect, by feature, in the order of the file."""
    known = _features()
    parts = []
    for identifier, entries in _expected(known).items():
        parts.append(f"## `{identifier}`")
        parts.append(f"[{known[identifier].title}](features.md#{identifier.replace('.', '')})")
        lines = []
        for one in entries:
            note = f": {one.note}" if one.note else ""
            lines.append(f"- {_torch(one)}: {' or '.join(one.status)}, {link(one.bug)}{note}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _expected(known: Mapping[str, Feature]) -> dict[str, list[Expectation]]:
    found: dict[str, list[Expectation]] = {}
    for one in read_expectations(bundled() / EXPECTATIONS, known):
        found.setdefault(one.feature, []).append(one)
    return found


def _torch(one: Expectation) -> str:
    if one.torch is None:
        return "every torch"
    return f"torch `{','.join(sorted(map(str, one.torch), reverse=True))}`"


def statuses(page: Path) -> str:
    """Every status of a feature in a cell."""
    return table(
        ["status", "letter", "meaning"],
        [[name, f"`{LETTERS[name]}`", text] for name, text in MEANINGS.items()],
    )


def cell(page: Path) -> str:
    """Every key of a cell."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    parts = [_keys(schema)]
    for name in ("run_info", "results"):
        inner = schema["properties"][name]
        parts += [f"### `{name}`", _keys(inner.get("items", inner))]
    return "\n\n".join(parts)


def _keys(schema: Mapping[str, Any]) -> str:
    rows = [
        [f"`{key}`", _kind(value), value.get("description", "")]
        for key, value in schema["properties"].items()
    ]
    required = schema.get("required")
    always = f"\n\nAlways there: {code(required)}." if required else ""
    return table(["key", "type", "what it is"], rows) + always


def _kind(value: Mapping[str, Any]) -> str:
    """The type of a value, in words."""
    if "const" in value:
        return f"{value['const']}"
    if "enum" in value:
        return "one of the statuses"
    kind = str(value["type"])
    inner = value.get("items", value.get("additionalProperties"))
    return f"{kind} of {inner['type']}s" if isinstance(inner, dict) else kind
