# SPDX-License-Identifier: Apache-2.0
"""Small words of sentences for people, and what is said of a timeout that is none."""

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


def show(value: object, limit: int = 200) -> str:
    """A value in at most `limit` characters, also one that has no repr."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__} without a repr>"
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def seconds(value: object, what: str) -> float:
    """A timeout: a number, more than 0 and at most an hour. what: it is called so. Raises ValueError with one sentence."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 3600:  # nor nan
        raise ValueError(
            f"{what}={show(value)} is not allowed; allowed: seconds, more than 0 and at most 3600"
        )
    return float(value)
