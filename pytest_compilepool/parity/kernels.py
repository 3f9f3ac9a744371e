# SPDX-License-Identifier: Apache-2.0
"""Whether two sides made the same kernels: the same texts, launch metadata, PTX and code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pytest_compilepool.parity import canonical
from pytest_compilepool.parity.artifacts import Artifact
from pytest_compilepool.parity.choices import compare_choices
from pytest_compilepool.parity.counts import measured
from pytest_compilepool.parity.disassembly import first_difference, instructions
from pytest_compilepool.parity.findings import Finding, Side

# First what says most; everything else that Triton writes about a kernel comes after it.
_ANOTHER_HASH = (
    "the code is the same under another hash of Triton's, which holds the text, the options and the environment "
    "(TRITON_PTXAS_PATH, for example) of the process that compiled: what one side compiled the other does not find"
)

_SAME = 1000  # more than there is metadata of a kernel

_FIRST = ("num_warps", "num_stages", "num_ctas", "shared", "target")


def compare_kernels(one: Side, other: Side) -> list[Finding]:
    """Every difference between the kernels of two sides. Raises UnreadableArtifact.

    Where kernels were chosen by how fast they ran, one that only one side has is another choice, not a difference.
    """
    found = _all_differences(one, other)
    if measured(one) or measured(other):
        found = [
            replace(finding, kind="config", fails=False) if finding.kind in ("kernel", "source") else finding
            for finding in found
        ]
    return [*_collapsed(found), *compare_choices(one, other)]


def _collapsed(findings: list[Finding]) -> Iterator[Finding]:
    """The same thing about many kernels, said once."""
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for finding in findings:
        if finding.kind in ("hash", "ptxas"):
            groups.setdefault((finding.kind, finding.text, finding.fails), []).append(finding.what)
        else:
            yield finding
    for (kind, text, fails), names in groups.items():
        kernels = list(dict.fromkeys(names))
        told = ", ".join(kernels[:3]) + (f" and {len(kernels) - 3} more kernels" if len(kernels) > 3 else "")
        yield Finding(kind, told, text, fails)


def _all_differences(one: Side, other: Side) -> list[Finding]:
    here, there = _by_source(one), _by_source(other)
    findings: list[Finding] = []
    paired: set[str] = set()
    for source in sorted({*here, *there}, key=lambda key: _name(here.get(key) or there[key])):
        if source in here and source in there:
            findings += _compare_configurations(one, other, here[source], there[source])
        elif source not in paired:
            partner = _same_name(source, here, there)
            if partner is None:
                findings.append(_missing(one, other, source, here, there))
            else:
                paired |= {source, partner}
                a, b = (source, partner) if source in here else (partner, source)
                findings.append(_other_source(one, other, here[a][0], there[b][0]))
    return findings


def identical_binaries(one: Side, other: Side) -> tuple[int, int]:
    """How many of the binaries that both sides have are the same byte for byte: (these, all)."""
    there = _by_source(other)
    same = both = 0
    for source, mine in _by_source(one).items():
        for artifact, partner in _pairs(one, other, mine, there.get(source, []))[0]:
            if artifact.binary is not None and partner.binary is not None:
                both += 1
                same += artifact.binary.read_bytes() == partner.binary.read_bytes()
    return same, both


def _by_source(side: Side) -> dict[str, list[Artifact]]:
    found: dict[str, list[Artifact]] = {}
    for artifact in side.artifacts:
        found.setdefault(artifact.source, []).append(artifact)
    return found


def _name(artifacts: list[Artifact]) -> str:
    return artifacts[0].kernel


def _same_name(source: str, here: dict[str, list[Artifact]], there: dict[str, list[Artifact]]) -> str | None:
    """A kernel of that name whose text only the other side has."""
    mine, theirs = (here, there) if source in here else (there, here)
    name = _name(mine[source])
    return next((key for key, found in theirs.items() if key not in mine and _name(found) == name), None)


def _missing(
    one: Side, other: Side, source: str, here: dict[str, list[Artifact]], there: dict[str, list[Artifact]]
) -> Finding:
    has, lacks = (one, other) if source in here else (other, one)
    found = here.get(source) or there[source]
    return Finding(
        "kernel",
        _name(found),
        f"made with {has.label} ({len(found)} configurations), missing with {lacks.label}",
    )


def _other_source(one: Side, other: Side, mine: Artifact, theirs: Artifact) -> Finding:
    texts = [
        side.shorten(artifact.source_file.read_text(encoding="utf-8")).splitlines()
        if artifact.source_file is not None
        else []
        for side, artifact in ((one, mine), (other, theirs))
    ]
    return Finding("source", mine.kernel, "the generated text differs " + _lines(one, other, *texts))


def _compare_configurations(
    one: Side, other: Side, mine: list[Artifact], theirs: list[Artifact]
) -> Iterator[Finding]:
    """The configurations of one kernel: in pairs, and those that have none."""
    pairs, left_here, left_there = _pairs(one, other, mine, theirs)
    for artifact, partner in pairs:
        found = list(_compare_pair(one, other, artifact, partner))
        yield from found
        if artifact.hash != partner.hash and not any(finding.kind == "ptxas" for finding in found):
            yield Finding("hash", artifact.kernel, _ANOTHER_HASH, fails=bool(found))
    for side, lacking, rest in ((one, other, left_here), (other, one, left_there)):
        for artifact in rest:
            in_parent = any(seen.hash == artifact.hash and not seen.cached for seen in side.answer.compiles)
            where = "by the parent itself" if in_parent else "by a worker"
            yield Finding(
                "kernel",
                artifact.kernel,
                f"the configuration {artifact.config} was compiled with {side.label} ({where}), "
                f"and not with {lacking.label}",
            )


def _pairs(
    one: Side, other: Side, mine: list[Artifact], theirs: list[Artifact]
) -> tuple[list[tuple[Artifact, Artifact]], list[Artifact], list[Artifact]]:
    """Which configuration of a kernel stands for which: first by hash, then by likeness. And what is left over."""
    by_hash = {artifact.hash: artifact for artifact in theirs}
    pairs = [(artifact, by_hash.pop(artifact.hash)) for artifact in mine if artifact.hash in by_hash]
    paired = {artifact.hash for artifact, _ in pairs}
    left_there = list(by_hash.values())
    left_here = []
    least = _SAME if measured(one) or measured(other) else 0
    for artifact in mine:
        if artifact.hash in paired:
            continue
        likeness = {index: _likeness(one, other, artifact, there) for index, there in enumerate(left_there)}
        best = max(likeness, key=lambda index: likeness[index], default=None)
        if best is None or likeness[best] < least:
            left_here.append(artifact)
        else:
            pairs.append((artifact, left_there.pop(best)))
    return pairs, left_here, left_there


def _likeness(one: Side, other: Side, mine: Artifact, theirs: Artifact) -> int:
    """How alike two configurations of one kernel are; from `_SAME` on they are the same one."""
    ours, their = _metadata(one, mine), _metadata(other, theirs)
    same_text = _text(one, mine, "ttir") == _text(other, theirs, "ttir")
    same_launch = all(ours.get(name) == their.get(name) for name in ("num_warps", "num_stages", "num_ctas"))
    alike = sum(ours[key] == their.get(key) for key in ours)
    return alike + _SAME // 2 * same_text + _SAME // 2 * (same_text and same_launch)


def _compare_pair(one: Side, other: Side, mine: Artifact, theirs: Artifact) -> Iterator[Finding]:
    yield from _compare_metadata(one, other, mine, theirs)
    if "ptx" in mine.files and "ptx" in theirs.files:
        texts = [
            canonical.ptx_lines(side.shorten(artifact.files["ptx"].read_text(encoding="utf-8")))
            for side, artifact in ((one, mine), (other, theirs))
        ]
        versions = [next(iter(text), "") for text in texts]
        if versions[0] != versions[1] and all(version.startswith(".version") for version in versions):
            # What else differs, in the PTX and in the code, follows from it.
            yield Finding(
                "ptxas",
                mine.kernel,
                f"compiled by another ptxas: {versions[0]!r} with {one.label}, {versions[1]!r} with {other.label}; "
                'the same one for both: environment={"TRITON_PTXAS_PATH": "/path/to/ptxas"}',
            )
            return
        if texts[0] != texts[1]:
            told = f"({mine.config}) the PTX differs " + _lines(one, other, *texts)
            yield Finding("ptx", mine.kernel, told)
    elif ("ptx" in mine.files) != ("ptx" in theirs.files):
        yield Finding("ptx", mine.kernel, "only one of the two sides has PTX")
    yield from _compare_code(one, other, mine, theirs)


def _metadata(side: Side, artifact: Artifact) -> dict[str, str]:
    """What Triton wrote about a kernel, as text without the side's folders; `hash` is looked at by itself."""
    return {
        name: side.shorten(json.dumps(value, sort_keys=True, default=str))
        for name, value in artifact.metadata.items()
        if name != "hash"
    }


def _compare_metadata(one: Side, other: Side, mine: Artifact, theirs: Artifact) -> Iterator[Finding]:
    ours, their = _metadata(one, mine), _metadata(other, theirs)
    differing = [name for name in {**ours, **their} if ours.get(name) != their.get(name)]
    differing.sort(key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    if differing:
        told = "; ".join(
            f"{name} is {ours.get(name, 'not there')} with {one.label} and "
            f"{their.get(name, 'not there')} with {other.label}"
            for name in differing
        )
        yield Finding("launch", mine.kernel, told)


def _compare_code(one: Side, other: Side, mine: Artifact, theirs: Artifact) -> Iterator[Finding]:
    if mine.binary is None or theirs.binary is None:
        if mine.binary is not None or theirs.binary is not None:
            yield Finding("code", mine.kernel, "only one of the two sides has a binary")
        return
    here, there = canonical.read_binary(mine.binary), canonical.read_binary(theirs.binary)
    resources = _resources(mine, here), _resources(theirs, there)
    for name in sorted({*resources[0], *resources[1]}):
        told = resources[0].get(name), resources[1].get(name)
        if told[0] != told[1]:
            text = f"{name} is {told[0]} with {one.label} and {told[1]} with {other.label}"
            yield Finding("launch", mine.kernel, text)
    if here.sections == there.sections and here.symbols == there.symbols:
        return
    differing = [
        name
        for name in sorted({*here.sections, *there.sections}, key=lambda name: (".text" not in name, name))
        if here.sections.get(name) != there.sections.get(name)
    ]
    yield Finding("code", mine.kernel, f"({mine.config}) " + _code_text(one, other, mine, theirs, differing))


def _resources(artifact: Artifact, binary: canonical.Binary) -> dict[str, int]:
    """Registers and spills, as far as the files tell."""
    found: dict[str, int] = {}
    if binary.registers is not None:
        found["registers"] = binary.registers
    if binary.spilled is not None:
        found["local memory (spills), bytes"] = binary.spilled
    if "amdgcn" in artifact.files:
        found |= canonical.amd_resources(artifact.files["amdgcn"].read_text(encoding="utf-8"))
    return found


def _code_text(one: Side, other: Side, mine: Artifact, theirs: Artifact, sections: list[str]) -> str:
    if not sections:
        return "the symbols of the binary differ"
    text = f"the binary differs in {', '.join(sections)}"
    if not sections[0].startswith(".text"):
        return text
    assert mine.binary is not None
    assert theirs.binary is not None
    codes = [instructions(mine.binary), instructions(theirs.binary)]
    if codes[0] is None or codes[1] is None:
        if "amdgcn" in mine.files and "amdgcn" in theirs.files:
            codes = [_text(one, mine, "amdgcn"), _text(other, theirs, "amdgcn")]
        else:
            return text + " (no disassembler here: nvdisasm comes with triton)"
    difference = first_difference(codes[0] or [], codes[1] or [])
    if difference is None:
        return text + ", in what nvdisasm does not show"
    number, here, there = difference
    return (
        f"{text}; the first other instruction is number {number}: {here!r} with {one.label}, "
        f"{there!r} with {other.label}"
    )


def _text(side: Side, artifact: Artifact, kind: str) -> list[str]:
    """A text file of an artifact, without folders and line information."""
    if kind not in artifact.files:
        return []
    text = side.shorten(artifact.files[kind].read_text(encoding="utf-8", errors="replace"))
    return [
        line for line in text.splitlines() if not line.lstrip().startswith(("#loc", ".loc", ".file", ";"))
    ]


def _lines(one: Side, other: Side, here: list[str], there: list[str]) -> str:
    difference: Any = first_difference(here, there)
    if difference is None:
        return "(in nothing but white space)"
    number, mine, theirs = difference
    return f"first in line {number}: {mine!r} with {one.label}, {theirs!r} with {other.label}"
