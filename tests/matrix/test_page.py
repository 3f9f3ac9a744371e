# SPDX-License-Identifier: Apache-2.0
"""The page: what stands in it, and that nothing of a cell is more than text in it. No browser; see test_page_browser."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser

import pytest

from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.page import page
from pytest_compilepool.matrix.table import Matrix

pytest.importorskip("jinja2")

EVIL = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"' onclick=window.pwned=1 {{ 7 * 7 }}"


class Elements(HTMLParser):
    """All elements with their attributes, and the text of the data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.found and self.found[-1][1].get("id") == "data":
            self.data += data
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def evil(cell):
    """A cell with markup wherever text may stand."""
    result = Result(
        "warm.a", "FAIL", "FAIL", [EVIL], EVIL, EVIL, EVIL, 1.0, [EVIL], EVIL, [EVIL], {EVIL: 1}, [EVIL]
    )
    run = dict.fromkeys(("torch", "triton", "vllm", "python", "gpu", "os", "ci", "started", "pool"), EVIL)
    return cell({"warm.a": result, EVIL: "PASS"}, run=run, source=EVIL, not_run={f"warm.{EVIL}": EVIL})


def test_markup_in_a_cell_is_text(evil):
    found = Elements(page(Matrix([evil]), {"warm.a": EVIL}, [EVIL]))
    assert len(found.of("script")) == 2
    assert not found.of("img")
    assert not [name for _, attributes in found.found for name in attributes if name.startswith("on")]
    assert "49" not in found.text.replace("{{ 7 * 7 }}", "")
    assert EVIL in json.loads(found.data)["texts"]


def test_nothing_comes_from_elsewhere(evil):
    text = page(Matrix([evil]), {})
    found = Elements(text)
    assert not [attributes for _, attributes in found.found if {"src", "href"} & set(attributes)]
    (policy,) = [one for one in found.of("meta") if one.get("http-equiv")]
    assert policy["content"].startswith("default-src 'none'")
    assert "@import" not in text
    assert "url(" not in text


def test_the_table_is_there_without_a_script(cell):
    cells = [
        cell({"warm.a": "PASS", "quiesce.b": "UNSUPPORTED"}, run={"torch": "2.8.0"}),
        cell({"warm.a": "FAIL", "quiesce.b": "PASS"}, run={"torch": "2.9.1"}),
        cell({"warm.a": "PASS", "quiesce.b": "PASS"}, run={"torch": "2.9.1", "gpu": "H200"}),
    ]
    found = Elements(page(Matrix(cells), {"warm.a": "It MUST be warm."}))
    squares = [one for one in found.of("td") if "data-status" in one]
    assert [one["aria-label"] for one in squares] == [
        "2.8.0: UNSUPPORTED ",
        "2.9.1: PASS ",
        "2.8.0: PASS ",
        "2.9.1: FAIL 1/2",
    ]
    assert "It MUST be warm." in [one.get("title") for one in found.of("th")]
    assert "3 cells, and what each is evidence for" in found.text


def test_what_was_left_out_and_what_disagrees_is_told(cell):
    cells = [cell({"warm.a": "PASS"}), cell({"warm.a": "FAIL"})]
    text = Elements(page(Matrix(cells), {}, ["half.json: is no cell"])).text
    assert "left out: half.json: is no cell" in text
    assert "! no vLLM, 2.13.0: cells of one environment disagree about warm.a" in text


def test_what_many_cells_say_alike_is_there_once(cell):
    reason = "it did not answer\n" + "x" * 1000
    failed = [
        cell(
            {"warm.a": Result("warm.a", "FAIL", "FAIL", reason=f"{reason}{number}", signature="s")},
            run={"gpu": f"{number}"},
        )
        for number in range(50)
    ]
    assert page(Matrix(failed), {}).count("it did not answer") == 1


def test_the_command(cell, written, compilepool, tmp_path, monkeypatch):
    file = written(cell())
    status, _, _ = compilepool("matrix", file, "--html", tmp_path / "out.html")
    assert status == 0
    assert (tmp_path / "out.html").read_text().startswith("<!DOCTYPE html>")
    status, _, err = compilepool("matrix", file, "--html", tmp_path / "not/there.html")
    assert status == 4
    assert "--html: " in err
    monkeypatch.setitem(sys.modules, "jinja2", None)
    status, _, err = compilepool("matrix", file, "--html", tmp_path / "other.html")
    assert status == 4
    assert "--html: jinja2 is not installed (pip install jinja2)" in err
    assert not (tmp_path / "other.html").exists()
