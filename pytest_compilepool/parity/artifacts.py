# SPDX-License-Identifier: Apache-2.0
"""What a compile left in Triton's cache folder: for each kernel and configuration its metadata and its files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_compilepool.torch_compat.kernels import source_key

# Where the kernel's text came from, as the first intermediate form says it.
_LOCATION = re.compile(r'loc\("([^"]+\.py)":\d+:\d+\)')

BINARIES = ("cubin", "hsaco")


@dataclass(frozen=True)
class Artifact:
    """One kernel compiled with one configuration.

    kernel: its name; source: `source_key` of the text it was compiled from; hash: Triton's name for text,
    options, target and environment; metadata: what Triton wrote about it (num_warps, num_stages, shared, ...);
    files: path by ending (ttir, ptx, cubin, ...); source_file: the text, or None where it is not to be found.
    """

    kernel: str
    source: str
    hash: str
    metadata: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, Path] = field(repr=False)
    source_file: Path | None = None

    @property
    def binary(self) -> Path | None:
        """The binary for the GPU, or None."""
        return next((self.files[kind] for kind in BINARIES if kind in self.files), None)

    @property
    def config(self) -> str:
        """The configuration in words."""
        names = ("num_warps", "num_stages", "num_ctas")
        return ", ".join(f"{name} {self.metadata[name]}" for name in names if name in self.metadata)


class UnreadableArtifact(ValueError):
    """Something in a cache folder is not what it should be. Its text is a sentence that names the file."""


def read_artifacts(triton: Path, moved: tuple[str, str] = ("", "")) -> list[Artifact]:
    """Everything that was compiled into a Triton cache folder, by kernel and hash.

    triton: the folder; moved: where the texts were when they were compiled, and where they are now.
    Raises UnreadableArtifact for metadata that cannot be read. A folder that is not there holds nothing.
    """
    found = []
    for folder in sorted(triton.iterdir()) if triton.is_dir() else ():
        if not folder.is_dir():
            continue
        for file in sorted(folder.glob("*.json")):
            if not file.name.startswith("__grp__"):
                found.append(_read(file, moved))
    return sorted(found, key=lambda artifact: (artifact.kernel, artifact.source, artifact.hash))


def _read(file: Path, moved: tuple[str, str]) -> Artifact:
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        hash_ = str(metadata["hash"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableArtifact(
            f"{file}: Triton's metadata of a kernel cannot be read: {type(error).__name__}: {error}"
        ) from None
    stem = file.name.removesuffix(".json")
    files = {
        other.name.removeprefix(stem + "."): other
        for other in file.parent.iterdir()
        if other.name.startswith(stem + ".") and ".tmp" not in other.name
    }
    source, key = _source_of(files, stem, moved)
    return Artifact(str(metadata.get("name", stem)), key, hash_, metadata, files, source)


def _source_of(files: Mapping[str, Path], kernel: str, moved: tuple[str, str]) -> tuple[Path | None, str]:
    for kind in ("source", "ttir"):
        if kind in files:
            located = _LOCATION.search(files[kind].read_text(encoding="utf-8", errors="replace"))
            if located:
                path = Path(located[1].replace(*moved) if moved[0] else located[1])
                if path.is_file():
                    text = path.read_text(encoding="utf-8")
                    # A file of Inductor's holds one kernel; one of the user's may hold several.
                    inductors = "triton_heuristics" in text
                    return path, source_key(text) + ("" if inductors else f":{kernel}")
    # Binaries only (TRITON_STORE_BINARY_ONLY), or the text is gone: the name has to do.
    return None, f"name:{kernel}"
