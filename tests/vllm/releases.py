# SPDX-License-Identifier: Apache-2.0
"""Files of released vLLM wheels, read where they lie on the index: the table of files, then the few that are wanted."""

from __future__ import annotations

import functools
import io
import json
import os
import urllib.request
import zipfile
from typing import Any

INDEX = os.environ.get("COMPILEPOOL_PYPI", "https://pypi.org")
SECONDS = 60.0
_BLOCK = 1 << 18


class RangeFile(io.RawIOBase):
    """A file on a server that gives parts of it."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size, 0
        self._blocks: dict[int, bytes] = {}

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        number, offset = divmod(self._at, _BLOCK)
        part = self._block(number)[offset : offset + wanted]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            first = number * _BLOCK
            last = min(first + _BLOCK, self._size) - 1
            request = urllib.request.Request(self._url, headers={"Range": f"bytes={first}-{last}"})
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                if answer.status != 206:
                    raise OSError(f"{self._url}: the server gives no parts (status {answer.status})")
                self._blocks[number] = answer.read()
        return self._blocks[number]


@functools.lru_cache
def _files(package: str) -> list[dict[str, Any]]:
    """What the index has of a package, by its JSON form of the simple page (PEP 691)."""
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    request = urllib.request.Request(f"{INDEX}/simple/{package}/", headers=accept)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        found: list[dict[str, Any]] = json.load(answer)["files"]
    return found


@functools.lru_cache
def wheel(package: str, version: str) -> zipfile.ZipFile:
    """The wheel of a release for x86-64 Linux. Raises OSError where the index cannot be reached."""
    begin = f"{package.replace('-', '_')}-{version}-"
    of_release = [file for file in _files(package) if file["filename"].startswith(begin)]
    wheels = [file for file in of_release if file["filename"].endswith("x86_64.whl")]
    chosen = min(wheels, key=lambda file: file["filename"])
    return zipfile.ZipFile(io.BufferedReader(RangeFile(chosen["url"], chosen["size"]), _BLOCK))


def source(package: str, version: str, path: str) -> str | None:
    """The text of a file in it, or None where it has none."""
    archive = wheel(package, version)
    if path not in archive.namelist():
        return None
    return archive.read(path).decode("utf-8")
