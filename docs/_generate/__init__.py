# SPDX-License-Identifier: Apache-2.0
"""The blocks that `docs/generate.py` fills: each a function of the page, and perhaps of a text, that gives Markdown."""

from __future__ import annotations

from collections.abc import Callable

from _generate import commands, plugin, suite, writing

BLOCKS: dict[str, Callable[..., str]] = {
    "pages": writing.pages,
    "fixtures": plugin.fixtures,
    "marker": plugin.marker,
    "hooks": plugin.hooks,
    "options": plugin.options,
    "command": commands.command,
    "cell": suite.cell,
    "statuses": suite.statuses,
    "features": suite.features,
    "requirements": suite.requirements,
    "expectations": suite.expectations,
}
