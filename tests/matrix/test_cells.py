# SPDX-License-Identifier: Apache-2.0
"""Cells as files: what is written is read, every schema there was is read, and what is no cell is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import pytest_compilepool.matrix
from pytest_compilepool.matrix.cell import SCHEMA, BadCell, Result, from_text, read_cell
from pytest_compilepool.matrix.statuses import LETTERS, MEANINGS, worst

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = Path(pytest_compilepool.matrix.__file__).parent / "schema"

FULL = Result(
    "warm.full",
    "XFAIL",
    "TIMEOUT",
    ["TIMEOUT"],
    "https://example.org/1",
    "did not answer",
    "",
    1.5,
    ["TIMEOUT", "TIMEOUT"],
    "did not answer < a.py:f",
    ["python -c 1"],
    {"inductor.fxgraph_cache_hit": 3},
    ["a note"],
)


def test_what_is_written_is_read(cell, written):
    made = cell(
        {"warm.a": "PASS", "warm.full": FULL},
        not_run={"warm.b": "runs in the mode stress"},
        timings={"ready": 3.25},
        shard="1/2",
        complete=False,
    )
    file = written(made)
    assert read_cell(file) == replace(made, source=str(file))
    assert json.loads(file.read_text())["totals"] == {"XFAIL": 1, "PASS": 1, "NOTRUN": 1}


def test_a_file_depends_on_its_contents_only(cell):
    one = cell({"warm.a": "PASS", "warm.b": "FAIL"}, run={"x": "1"})
    other = cell({"warm.b": "FAIL", "warm.a": "PASS"}, run={"x": "1"})
    other.run = dict(reversed(other.run.items()))
    assert one.to_text() == other.to_text()


def test_every_schema_there_was_is_read():
    """A golden file each, made by a real run; nobody changes one."""
    files = {int(file.stem.rpartition("-")[2]): file for file in GOLDEN.iterdir()}
    assert sorted(files) == list(range(1, SCHEMA + 1))
    for number, file in files.items():
        found = read_cell(file)
        assert found.schema == number
        assert found.results
        assert found.run["torch"]
        assert set(found.totals) <= set(LETTERS)


def test_of_the_first_schema_everything_is_there():
    found = read_cell(GOLDEN / "cell-1.jsonl")
    assert found.totals == {"PASS": 23, "SKIP": 1}
    assert found.complete
    skipped = found.results["vllm.tensor-parallel-two"]
    assert (skipped.status, skipped.requirement, skipped.got) == ("SKIP", "vllm_two_devices", "")
    assert found.results["vllm.late-kernels"].notes == ["3 kernels; the workers were gone in 0.04 s"]


def test_words_of_the_first_schema_are_told_in_those_of_today():
    head = {"schema": 1, "mode": "smoke", "complete": True, "run": {"torch": "2.9.1"}}
    row = {
        "feature": "warm.a",
        "status": "HANG",
        "outcome": "known",
        "expected": ["HANG"],
        "bug": "https://x",
        "text": "t",
    }
    found = from_text(f"{json.dumps(head)}\n{json.dumps(row)}\n", "x")
    assert found.results["warm.a"].status == "XFAIL"
    assert found.results["warm.a"].got == "TIMEOUT"
    assert found.results["warm.a"].expected == ["TIMEOUT"]


def test_the_schema_says_what_is_written(cell):
    schema = json.loads((SCHEMAS / f"cell-{SCHEMA}.json").read_text())
    result = schema["properties"]["results"]["items"]["properties"]
    assert result["status"]["enum"] == list(LETTERS) == list(MEANINGS)
    assert set(result) == set(Result.__dataclass_fields__)
    told = json.loads(cell({"warm.full": FULL}).to_text())
    assert set(told) == set(schema["properties"])
    assert set(told["results"][0]) <= set(result)


def test_the_schema_accepts_what_is_written_and_nothing_else(cell):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMAS / f"cell-{SCHEMA}.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    check.check_schema(schema)
    told = json.loads(cell({"warm.full": FULL}, not_run={"warm.b": "why"}).to_text())
    assert list(check.iter_errors(told)) == []
    assert list(check.iter_errors({**told, "a key of tomorrow": 1})) == []
    assert list(check.iter_errors({**told, "schema": 3}))
    told["results"][0]["status"] = "MAYBE"
    assert list(check.iter_errors(told))


def test_unknown_keys_are_ignored(cell):
    told = json.loads(cell().to_text())
    told["tomorrow"] = 1
    told["results"][0]["tomorrow"] = {"x": 1}
    assert from_text(json.dumps(told), "x").results.keys() == {"warm.a"}


def changed(told, **new):
    return {**told, **new}


RESULT = {"id": "warm.a", "status": "PASS"}


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ({"schema": 3}, "schema 3 is not known; this release reads 1 to 2"),
        ({"schema": 0}, "schema 0 is not known"),
        ({"schema": "2"}, "no object with the keys schema and results"),
        ({"results": [RESULT, RESULT]}, "results[1]: the feature 'warm.a' is there twice"),
        ({"results": [{"id": "warm.a"}]}, "results[0]: status is not there or no text"),
        (
            {"results": [{**RESULT, "status": "OK"}]},
            "results[0]: status 'OK' is not allowed; allowed: CRASH, ",
        ),
        ({"results": [{**RESULT, "expected": "FAIL"}]}, "results[0].expected: 'FAIL' is not a list"),
        ({"results": [{**RESULT, "notes": [1]}]}, "results[0].notes: 1 is no text"),
        ({"results": [{**RESULT, "duration": True}]}, "results[0].duration: 'True' is not a number"),
        ({"results": [{**RESULT, "counters": {"a": "3"}}]}, "results[0].counters['a']: '3' is no number"),
        ({"results": [7]}, "results[0]: 7 is no object"),
        ({"results": {}}, "results: '{}' is not a list"),
        ({"not_run": {"warm.a": "why"}}, "not_run['warm.a']: the feature has a result, too"),
        ({"run_info": []}, "run_info: '[]' is not an object"),
        ({"complete": 1}, "complete: '1' is not true or false"),
    ],
)
def test_what_is_no_cell_says_where(cell, new, says):
    told = {**json.loads(cell().to_text()), **new}
    with pytest.raises(BadCell) as error:
        from_text(json.dumps(told), "file.json")
    assert str(error.value).startswith("file.json: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_one_cut_off_in_the_middle(cell, part):
    text = cell({f"warm.a{number}": "PASS" for number in range(40)}).to_text()
    with pytest.raises(BadCell, match="is no cell: no JSON"):
        from_text(text[: int(len(text) * part)], "x")


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "no JSON", '{"schema": 2}', "[" * 100_000])
def test_a_file_that_is_no_cell(text):
    with pytest.raises(BadCell, match="is no cell"):
        from_text(text, "x")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadCell, match="not UTF-8"):
        read_cell(tmp_path / "x")
    with pytest.raises(BadCell, match="cannot be read: No such file"):
        read_cell(tmp_path / "y")


def test_the_worst_decides():
    assert worst(["PASS", "SKIP"]) == "PASS"
    assert worst(["PASS", "XFAIL", "FAIL", "NOTRUN"]) == "FAIL"
    assert worst([]) == "NOTRUN"
