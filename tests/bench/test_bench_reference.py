# SPDX-License-Identifier: Apache-2.0
"""The reference names every option of `compilepool bench`, and every workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_compilepool.bench.workloads import WORKLOADS
from pytest_compilepool.cli import bench
from pytest_compilepool.cli.refusal import Parser

DOCS = Path(__file__).parents[2] / "docs"


def options() -> dict[str, list[str]]:
    """Options by bench."""
    parser = Parser()
    bench.add_arguments(parser)
    (whats,) = (action for action in parser._actions if action.dest == "what")
    return {
        name: [
            option for option in sub._option_string_actions if option.startswith("--") and option != "--help"
        ]
        for name, sub in whats.choices.items()
    }


@pytest.mark.parametrize("name", ["pool", "compile", "vllm"])
def test_it_is_in_the_reference(name):
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    section = text[text.index("## `compilepool bench`") : text.index("## `compilepool reap`")]
    row = next(line for line in section.splitlines() if line.startswith(f"| `bench {name} "))
    everywhere = section.partition("| command |")[0]
    for option in options()[name]:
        assert f"`{option}" in everywhere or f"[{option}" in row, option


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_workload_is_in_the_how_to(name):
    assert f"| `{name}` |" in (DOCS / "how-to" / "bench.md").read_text(encoding="utf-8")
