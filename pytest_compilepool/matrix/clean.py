# SPDX-License-Identifier: Apache-2.0
"""Texts of a cell as they may be printed: signs that steer a terminal, or turn a line around, are told and not obeyed."""

from __future__ import annotations

import re
from typing import Any

_STEERS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINES = re.compile(f"[{_STEERS}]")
_IN_A_LINE = re.compile(f"[\t\n{_STEERS}]")
_ESCAPES = ("\\u", "\\b", "\\f", "\\r")
"""Of JSON, for what may be such a sign."""

_OF_LINES = ("reason",)
"""Keys whose texts may have several lines."""


def cleaned(document: Any, text: str) -> Any:
    """It, read from that text of JSON, with `\\x1b` for an escape sign, and in a text of one line for an end of line."""
    return _walk(document, _IN_A_LINE) if _may_steer(document, text) else document


def _may_steer(document: Any, text: str) -> bool:
    """Most have nothing of the kind, and need not be walked through, which takes as long as to read them."""
    if any(escape in text for escape in _ESCAPES) or "\x7f" in text:
        return True
    # JSON itself has none below the blank.
    if not text.isascii() and _IN_LINES.search(text):
        return True
    results = document.get("results") if isinstance(document, dict) else None
    reasons = (
        [one.get("reason") for one in results or () if isinstance(one, dict)]
        if isinstance(results, list)
        else []
    )
    inside = "".join(reason for reason in reasons if isinstance(reason, str))
    # All ends of lines are in reasons, in which they may be.
    return any(text.count(f"\\{sign}") != inside.count(end) for sign, end in (("n", "\n"), ("t", "\t")))


def _walk(value: Any, steers: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return steers.sub(_told, value)
    if isinstance(value, list):
        return [_walk(one, steers) for one in value]
    if isinstance(value, dict):
        return {
            steers.sub(_told, name): _walk(one, _IN_LINES if name in _OF_LINES else _IN_A_LINE)
            for name, one in value.items()
        }
    return value


def _told(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
