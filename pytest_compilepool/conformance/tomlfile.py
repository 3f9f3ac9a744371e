# SPDX-License-Identifier: Apache-2.0
"""TOML files that people write: tables of one name, each with the line where it begins, for messages."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from pytest_compilepool.regular import read_text

_MOST_BYTES = 16 * 2**20

# pytest brings tomli along where Python has no tomllib.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


class BadFile(ValueError):
    """A file of a suite is not as it must be; the text has the file, the line, the value and what is allowed."""


class Table:
    """One table. where: `FILE:LINE` of its header."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = values
        self.where = where

    def wrong(self, text: str) -> BadFile:
        """The error to raise."""
        return BadFile(f"{self.where}: {text}")

    def keys_are(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        """Raises BadFile where a key lacks, or one is there that nobody knows."""
        for key in required:
            if key not in self._values:
                raise self.wrong(f"lacks {key!r}; required: {', '.join(required)}")
        for key in self._values:
            if key not in required + optional:
                raise self.wrong(f"has {key!r}; allowed: {', '.join(required + optional)}")

    def text(self, key: str, otherwise: str = "") -> str:
        """A text that is not empty, or `otherwise` where the key is not there."""
        value = self._values.get(key, None)
        if value is None:
            return otherwise
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{key} = {value!r} is not allowed; allowed: a text that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where the key is not there."""
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise self.wrong(f"{key} = {value!r} is not allowed; allowed: a list of texts")
        return tuple(value)

    def flag(self, key: str) -> bool:
        """true or false; False where the key is not there."""
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(f"{key} = {value!r} is not allowed; allowed: true or false")
        return value

    def number(self, key: str, otherwise: float) -> float:
        """A number above 0."""
        value = self._values.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 3600:
            raise self.wrong(
                f"{key} = {value!r} is not allowed; allowed: seconds, more than 0 and at most 3600"
            )
        return float(value)


def tables(file: Path, name: str) -> list[Table]:
    """The `[[name]]` tables of a file, in their order. Raises BadFile where it cannot be read or holds anything else."""
    try:
        source = read_text(file, _MOST_BYTES)
        content = tomllib.loads(source)
    except (OSError, ValueError) as error:
        raise BadFile(f"{file}: cannot be read: {error}") from None
    for key, value in content.items():
        if key != name or not isinstance(value, list):
            raise BadFile(f"{file}: has {key!r}; allowed: tables [[{name}]]")
    entries, lines = content.get(name, []), _headers(source, name)
    if len(lines) != len(entries):
        raise BadFile(
            f"{file}: {name!r} is there {len(entries)} times, and the line [[{name}]] {len(lines)} times; allowed: each "
            "under such a line of its own"
        )
    return [Table(values, f"{file}:{line}") for values, line in zip(entries, lines, strict=True)]


def _headers(source: str, name: str) -> list[int]:
    """The lines, counted from 1, at which a table of that name begins."""
    header = re.compile(rf"^[ \t]*\[\[[ \t]*{re.escape(name)}[ \t]*\]\]", re.MULTILINE)
    return [
        source.count("\n", 0, found.start()) + 1
        for found in header.finditer(source)
        if not _within_a_text(source[: found.start()])
    ]


def _within_a_text(before: str) -> bool:
    """Whether what stands before a line ends inside of a text of several lines, where a header is only words."""
    if not re.search(r"\"{3}|'{3}", before):
        return False
    try:
        tomllib.loads(before)
    except tomllib.TOMLDecodeError:
        return True
    return False
