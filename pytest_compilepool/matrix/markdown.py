# SPDX-License-Identifier: Apache-2.0
"""Texts of cells in Markdown: whatever is in them stays text."""

from __future__ import annotations


def link(text: str) -> str:
    """It, where it is an address that can stand in Markdown."""
    return text if text.startswith("https://") and not set(text) & set(" ()<>\"'`|\n") else ""


def escaped(text: str) -> str:
    """As it is, whatever is in it."""
    for sign in "\\`*_|[]<>~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
