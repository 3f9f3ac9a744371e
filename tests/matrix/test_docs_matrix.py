# SPDX-License-Identifier: Apache-2.0
"""The cells of real runs that are kept: what is made of them is what they say, and what is written of them is all of it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.matrix.compare import compare
from pytest_compilepool.matrix.defects import defects
from pytest_compilepool.matrix.table import Matrix

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/matrix"
README = (FOLDER / "README.md").read_text()
RELEASES = ("28", "29", "211", "213", "214", "215")


def cells():
    return {file.stem: read_cell(file) for file in sorted(FOLDER.glob("*.json"))}


def test_each_is_a_whole_run_of_what_its_name_says():
    factors = dict(
        re.findall(
            r"^    (torch\d+): PAIR_TORCH = torch==(\S+)", (ROOT / "tox.ini").read_text(), re.MULTILINE
        )
    )
    for name, cell in cells().items():
        assert cell.complete, name
        assert not cell.shard, name
        assert cell.run["torch"].partition("+")[0] == factors[name.split("-")[1]]
        assert ("vllm" in name) == any(one.tried and one.group == "vllm" for one in cell.results.values())
        assert f"`{name}.json`" in README
    assert {f"py311-torch{release}-triton" for release in RELEASES} <= cells().keys()


def test_nothing_in_them_is_unexpected():
    for name, cell in cells().items():
        assert {one.status for one in cell.results.values()} <= {"PASS", "XFAIL", "SKIP", "UNSUPPORTED"}, name


def test_the_page_is_made_from_them(compilepool, tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.chdir(ROOT)
    assert compilepool("matrix", "docs/matrix", "--html", tmp_path / "page.html")[0] == 0
    made = (tmp_path / "page.html").read_text()
    again = "compilepool matrix docs/matrix --html docs/matrix/matrix.html"
    assert (FOLDER / "matrix.html").read_text() == made, f"it is not of these cells any more: {again}"


def test_the_picture_is_there():
    assert (FOLDER / "matrix.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_is_read_off_them():
    block = README.partition("--defects -->\n")[2].partition("<!-- the end -->")[0]
    assert block == "\n".join(defects(Matrix(cells().values()))) + "\n"


def test_each_difference_is_looked_up():
    """Of each neighbouring pair; the sections of the page are in their order."""
    sections = README.split("\n### ")[1:]
    pairs = list(pairwise(cells()[f"py311-torch{release}-triton"] for release in RELEASES))
    assert len(sections) == len(pairs)
    for section, (base, head) in zip(sections, pairs, strict=True):
        for change in compare(base, head):
            if change.kind in ("same", "not comparable"):
                continue
            every = f"`{change.feature.partition('.')[0]}.*`"
            assert f"`{change.feature}`" in section or (change.kind == "new" and every in section), change
            kind = change.kind.replace("another", "another signature").replace(
                "regressed, known", "regressed, and known"
            )
            assert f"{kind}: " in section, change
