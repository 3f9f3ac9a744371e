# SPDX-License-Identifier: Apache-2.0
"""Which fields of a run say which environment it was, and along which axes two environments differ."""

from __future__ import annotations

import re
from typing import Any

from packaging.version import InvalidVersion, Version

from pytest_compilepool.matrix.cell import Cell

AXES: dict[str, tuple[str, ...]] = {
    "pool": ("pool",),
    "torch": ("torch", "torch_git", "triton", "cuda", "start_method", "defaults"),
    "vllm": ("vllm",),
    "python": ("python",),
    "GPU": ("gpu", "gpus", "driver"),
    "machine": ("os", "kernel", "arch", "cpus", "memory_limit", "processes", "host"),
    "pytest": ("pytest", "plugins"),
    "environment": ("environment",),
}
"""What comes together is one axis: a release of torch names its triton and its CUDA."""

_OF_THE_RUN = ("started", "ci", "host")
_VARIES = ("kernel", "cpus", "memory_limit", "processes", "driver", "plugins", *_OF_THE_RUN)
"""Fields in which the parts of one run may differ, since machines do."""

NO_VLLM = "no vLLM"
TORCHS = "torch's compile pool"
_VERSIONED = re.compile(r"(?:vLLM )?(\d\S*)( nightly)?")


def identity(cell: Cell) -> str:
    """The same for cells of one environment, wherever and whenever they were made."""
    run = {name: value for name, value in cell.run.items() if name not in _VARIES}
    return repr((cell.suite, cell.mode, sorted((name, _frozen(value)) for name, value in run.items())))


def differing_fields(base: Cell, head: Cell) -> list[str]:
    """Names of the fields that make two environments of these."""
    names = sorted({*base.run, *head.run} - {*_VARIES})
    return [name for name in names if _frozen(base.run.get(name)) != _frozen(head.run.get(name))]


def differing_axes(base: Cell, head: Cell) -> dict[str, list[str]]:
    """The axes along which they differ, each with its fields, as `name: base, head`."""
    found: dict[str, list[str]] = {}
    for axis, names in AXES.items():
        lines = [
            f"{name}: {_told(base.run.get(name))}, {_told(head.run.get(name))}"
            for name in names
            if name != "defaults" and _frozen(base.run.get(name)) != _frozen(head.run.get(name))
        ]
        if lines:
            found[axis] = lines
    if bool(base.run.get("cuda")) != bool(head.run.get("cuda")):
        # A CPU build beside a CUDA build is more than another release.
        found["build"] = [f"cuda: {_told(base.run.get('cuda'))}, {_told(head.run.get('cuda'))}"]
    for axis, mine, its in (("suite", base.suite, head.suite), ("mode", base.mode, head.mode)):
        if mine != its:
            found[axis] = [f"{axis}: {mine or '-'}, {its or '-'}"]
    return found


def is_torchs(cell: Cell) -> bool:
    """Whether torch's own pool was tried, and not another that lives beside that torch. The first cells do not say."""
    return str(cell.run.get("pool") or TORCHS) == TORCHS


def lane(cell: Cell) -> str:
    """vLLM's release, or that there was none; another pool has a lane of its own."""
    if not is_torchs(cell):
        return str(cell.run["pool"])
    version = str(cell.run.get("vllm") or "")
    return f"vLLM {base(version)}" if version and version != "-" else NO_VLLM


def column(cell: Cell) -> str:
    """Of which torch: its release, all nightlies of one together; the pool's name where it is no torch's."""
    version = str(cell.run.get("torch") or "")
    if not version:
        return str(cell.run.get("pool") or "?")
    return f"{base(version)} nightly" if is_nightly(version) else base(version)


def order(name: str) -> tuple[int, Version, str]:
    """By which lanes and columns are sorted: without vLLM first, then by version."""
    found = _VERSIONED.fullmatch(name)
    try:
        # A nightly comes before its release.
        return 1, Version(found[1] + (".dev0" if found[2] else "")), name  # type: ignore[index]
    except (TypeError, InvalidVersion):
        return (0 if name == NO_VLLM else 2), Version("0"), name


def by_age(cell: Cell) -> tuple[Version, str]:
    """By which cells of one column are sorted: version, then start."""
    version = str(cell.run.get("torch") or "0").partition("+")[0]
    try:
        return Version(version), str(cell.run.get("started") or "")
    except InvalidVersion:
        return Version("0"), version


def base(version: str) -> str:
    """`2.13.0` of `2.13.0+cpu` and of `2.13.0.dev20261101`."""
    try:
        return Version(version).base_version
    except InvalidVersion:
        return version


def is_nightly(version: str) -> bool:
    """Whether it is no release: built before it."""
    try:
        return Version(version).is_prerelease
    except InvalidVersion:
        return False


def title(cell: Cell) -> str:
    """One line that tells it from others."""
    run = cell.run
    parts = [f"torch {run['torch']}" if run.get("torch") else str(run.get("pool") or "?")]
    parts += [f"{name} {run[name]}" for name in ("triton", "vllm", "python") if run.get(name, "-") != "-"]
    if run.get("gpu") or "kernel" in run:  # cells of the first schema do not say
        parts.append(str(run.get("gpu") or "no GPU"))
    return ", ".join(parts)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(one)) for name, one in value.items()))
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in sorted(value.items())) or "-"
    return "-" if value in (None, "") else str(value)
