# SPDX-License-Identifier: Apache-2.0
"""Plots are well-formed SVG, the same to the byte for the same result, also where texts are hashed otherwise."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pytest_compilepool.bench import svg
from pytest_compilepool.bench.result import Result

pytest.importorskip("matplotlib", reason="--svg needs matplotlib")

SAVED = Path(__file__).parents[2] / "benchmarks" / "vllm-opt-1.3b-h200.json"


def texts(file: Path) -> str:
    """What can be read in a plot."""
    tree = ElementTree.parse(file)
    assert tree.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    return "\n".join("".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text"))


def test_a_plot_of_compiles(compiled, tmp_path):
    svg.draw_compile(compiled, str(tmp_path / "plot.svg"))
    said = texts(tmp_path / "plot.svg")
    for text in (
        "2 processes, primed",
        "the bound",
        "Inductor, without kernels",
        "model",
        "torch 2.13.0, for cuda:90",
    ):
        assert text in said


def test_a_plot_of_pools(pools, tmp_path):
    svg.draw_pool(pools, str(tmp_path / "plot.svg"))
    said = texts(tmp_path / "plot.svg")
    assert "ready after that" in said
    assert "4 processes" in said
    assert "USS" not in said
    assert "0.1 s" in said
    assert "$" not in said, "a power of ten as mathematics, which is not drawn as such"


def test_results_without_much_in_them_are_plotted_too(tmp_path):
    for draw in (svg.draw_compile, svg.draw_pool):
        draw(Result("compile", {}), str(tmp_path / "plot.svg"))
        texts(tmp_path / "plot.svg")


def test_the_same_result_is_the_same_plot(bench, compiled, pools, tmp_path):
    for result, draw in ((compiled, svg.draw_compile), (pools, svg.draw_pool)):
        saved = tmp_path / f"{result.bench}.json"
        saved.write_text(json.dumps(result.as_json()))
        draw(result, str(tmp_path / "here.svg"))
        done = bench(
            *(result.bench, "--from", str(saved), "--svg", str(tmp_path / "there.svg")),
            tmp=tmp_path / "tmp",
            PYTHONHASHSEED="7",
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "here.svg").read_bytes() == (tmp_path / "there.svg").read_bytes()
        assert "Date" not in (tmp_path / "here.svg").read_text()


def test_a_saved_bench_of_vllm_is_shown_and_plotted_without_vllm(bench, tmp_path):
    done = bench("vllm", "--from", str(SAVED), "--svg", str(tmp_path / "plot.svg"), tmp=tmp_path / "tmp")
    assert done.returncode == 0, done.stderr
    assert "6.19         5.85 (+11.6%)" in done.stdout
    assert "graph compile" in texts(tmp_path / "plot.svg")
