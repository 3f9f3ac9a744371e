# SPDX-License-Identifier: Apache-2.0
"""Small words of sentences for people."""

from __future__ import annotations


def sendable(text: str) -> str:
    """The same text, with whatever UTF-8 has no bytes for (names of files may hold it) written out: xdist sends UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(number: int, one: str, many: str = "") -> str:
    """Such as "1 process" and "2 processes". many: the plural, where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def last_line(error: BaseException) -> str:
    """The last line of an error's text that says something: what a worker's traceback ends with; its class without one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
