# SPDX-License-Identifier: Apache-2.0
"""Small words of sentences for people."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Such as "1 process" and "2 processes". many: the plural, where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
