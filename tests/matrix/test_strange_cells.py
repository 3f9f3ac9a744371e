# SPDX-License-Identifier: Apache-2.0
"""Cells that say strange things: a sentence, and neither a traceback nor a wrong answer."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from pytest_compilepool.matrix.cell import BadCell, Result, from_text, read_cell
from pytest_compilepool.matrix.compare import KINDS, compare
from pytest_compilepool.matrix.defects import defects
from pytest_compilepool.matrix.environments import differing_axes, order
from pytest_compilepool.matrix.history import history
from pytest_compilepool.matrix.page import page
from pytest_compilepool.matrix.plain import markdown
from pytest_compilepool.matrix.support import support
from pytest_compilepool.matrix.table import Matrix
from pytest_compilepool.matrix.writing import write_whole


@pytest.fixture
def document(cell):
    """The document of a usual cell, with these keys."""

    def make(**keys):
        return json.loads(cell().to_text()) | keys

    return make


RESULT = {"id": "warm.a", "status": "PASS"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"shard": "abc"}, "shard: 'abc' is not allowed; allowed: K/N"),
        ({"shard": "1/3000000000"}, "shard: '1/3000000000' is not allowed"),
        ({"timings": {"ready": 10**400}}, "timings['ready']: '1000"),
        ({"timings": {"ready": "3"}}, "timings['ready']: '3' is no number"),
        ({"results": [RESULT | {"duration": 10**400}]}, "results[0].duration: '1000"),
        ({"results": [RESULT | {"counters": {"hits": 10**400}}]}, "results[0].counters['hits']: '1000"),
    ],
)
def test_what_no_cell_says(document, keys, says):
    with pytest.raises(BadCell) as caught:
        from_text(json.dumps(document(**keys)), "it.json")
    assert str(caught.value).startswith(f"it.json: is no cell: {says}")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_json_has_not(document, text):
    with pytest.raises(BadCell, match="no JSON"):
        from_text(
            json.dumps(document(timings={})).replace('"timings": {}', f'"timings": {{"a": {text}}}'), "it"
        )


def test_a_key_that_is_there_twice_decides_nothing(document):
    text = json.dumps(document(results=[RESULT]))
    with pytest.raises(BadCell, match="the key 'results' is there twice"):
        from_text(text[:-1] + ', "results": []}', "it.json")


@pytest.mark.parametrize(
    "verdict",
    [
        {"feature": "warm.a", "status": "PASS", "expected": 0},
        {"feature": "warm.a", "status": ["PASS"]},
        {"feature": "warm.a", "status": "PASS", "outcome": ["known"]},
    ],
)
def test_lines_that_are_not_as_schema_1_has_them(verdict):
    text = json.dumps({"schema": 1, "run": {}}) + "\n" + json.dumps(verdict)
    with pytest.raises(BadCell, match="its lines are not as schema 1 has them"):
        from_text(text, "it.json")


STEERS = "\x1b[2J\x07\u202e\ud800\x85"


def test_what_steers_a_terminal_is_told_and_not_obeyed(document, compilepool, tmp_path):
    evil = {
        "id": f"warm.{STEERS}",
        "status": "FAIL",
        "reason": f"one\ntwo\t{STEERS}",
        "bug": f"https://x/\n{STEERS}",
    }
    file = tmp_path / "cell.json"
    told = document(results=[evil], run_info={"torch": f"2.13.0{STEERS}\nno feature changed"})
    file.write_text(json.dumps(told))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(told | {"results": [evil | {"status": "PASS"}]}))
    for arguments in (
        ["matrix", file],
        ["matrix", file, "--markdown"],
        ["matrix", file, "--defects"],
        ["matrix", file, "--html", tmp_path / "page.html"],
        ["compare", other, file],
    ):
        status, out, err = compilepool(*arguments)
        assert status in (0, 1)
        assert not set("\x1b\x07\u202e\ud800\x85") & set(out + err)
        assert "\nno feature changed" not in out
    (one,) = read_cell(file).results.values()
    assert one.reason.startswith("one\ntwo\t\\x1b[2J\\x07\\u202e\\ud800\\x85")
    assert "\n" not in one.bug


def test_where_a_terminal_has_few_signs(written, cell):
    file = written(cell({"warm.\u00e9": "PASS"}))
    command = [sys.executable, "-m", "pytest_compilepool.cli", "matrix", str(file)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    told = subprocess.run(
        command, cwd=file.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "warm.\\xe9" in told.stdout


def test_a_name_that_no_file_can_have(compilepool):
    for command in (["matrix", "x" * 5000], ["compare", "x" * 5000, "y"]):
        status, _, err = compilepool(*command)
        assert status == 4
        assert "is no name of a file" in err


def test_one_file_by_two_names_is_one(compilepool, written, cell, tmp_path):
    file = written(cell())
    (tmp_path / "link.json").symlink_to(file)
    _, out, _ = compilepool("matrix", file, tmp_path, tmp_path / "link.json")
    assert out.count("evidence for") == 1


def test_an_identifier_is_text_in_markdown(compilepool, written, cell):
    evil = "warm.`\\n# <b>"
    two = [
        written(cell({evil: Result(evil, status, status, reason="why")}, run={"torch": version}), f"{version}.json")
        for status, version in (("PASS", "2.8.0"), ("FAIL", "2.9.0"))
    ]  # fmt: skip
    _, out, _ = compilepool("matrix", *two, "--markdown")
    assert "- warm.\\`\\\\n# \\<b\\>, 2.9.0: FAIL" in out


# -- what is read off them -----------------------------------------------------------------------------


def row(*cells):
    return list(defects(Matrix(cells)))[-1]


def test_another_pool_beside_a_torch_is_not_torchs(cell):
    mine = cell({"warm.a": "FAIL"}, run={"pool": "my 99 pool"})
    matrix = Matrix([cell({"warm.a": "PASS"}), mine])
    assert [(one.lane, one.name) for one in matrix.columns] == [
        ("no vLLM", "2.13.0"),
        ("my 99 pool", "2.13.0"),
    ]
    assert row(cell({"warm.a": "PASS"}), mine) == "| --- | --- | --- | --- |"


def test_a_number_in_the_name_of_a_pool_is_no_version():
    assert sorted(["my 1 pool", "vLLM 0.9.0", "2.9.1", "no vLLM", "2.13.0 nightly"], key=order) == [
        "no vLLM",
        "vLLM 0.9.0",
        "2.9.1",
        "2.13.0 nightly",
        "my 1 pool",
    ]


def test_a_torch_that_cannot_any_more_has_not_mended_it(cell):
    told = row(
        cell({"warm.a": "FAIL"}, run={"torch": "2.8.0"}),
        cell({"warm.a": "UNSUPPORTED"}, run={"torch": "2.9.0"}),
    )
    assert "still in 2.8.0" in told


def test_a_regression_is_not_hidden_by_a_machine_that_cannot(cell):
    told = row(
        cell({"warm.a": "PASS"}, run={"torch": "2.12.0", "gpu": "H200"}),
        cell({"warm.a": "UNSUPPORTED"}, run={"torch": "2.12.0"}),
        cell({"warm.a": "FAIL"}, run={"torch": "2.13.0", "gpu": "H200"}),
    )
    assert "after 2.12.0, by 2.13.0" in told


def test_only_the_place_that_saw_a_defect_can_see_it_gone(cell):
    seen = cell({"warm.a": "FAIL"}, run={"torch": "2.13.0", "vllm": "0.32.0"})
    others = [
        cell({"warm.a": "PASS"}, run={"torch": "2.14.0"}),
        cell({"warm.a": "SKIP"}, run={"torch": "2.14.0", "vllm": "0.32.0"}),
    ]
    assert "still in 2.13.0" in row(seen, *others)
    assert "after 2.13.0, by 2.14.0" in row(
        seen, cell({"warm.a": "PASS"}, run={"torch": "2.14.0", "vllm": "0.32.0"})
    )


def test_a_process_that_died_is_no_defect_of_torch(cell):
    assert row(cell({"warm.a": "ERROR"})) == "| --- | --- | --- | --- |"


def test_cells_of_one_environment_that_disagree(cell):
    matrix = Matrix([cell({"warm.a": "PASS"}), cell({"warm.a": Result("warm.a", "XFAIL", "FAIL")})])
    (column,) = matrix.columns
    assert (column.squares["warm.a"].status, column.squares["warm.a"].many) == ("FLAKY", 2)
    assert "not everywhere" in row(*matrix.cells)


def test_kept_here_and_impossible_there_is_partial(cell):
    told = support(Matrix([cell({"warm.a": "PASS"}), cell({"warm.a": "UNSUPPORTED"}, run={"gpu": "H200"})]))
    assert told["features"]["warm.a"]["no vLLM"][0]["partial"] is True


def test_two_machines_are_no_change(cell):
    nights = [
        cell(
            {"warm.a": status},
            run={
                "torch": f"2.16.0.dev2026112{night}",
                "torch_git": f"{night}" * 8,
                "gpu": gpu,
                "kernel": "6",
            },
        )
        for night in (1, 2)
        for status, gpu in (("PASS", None), ("FAIL", "H200"))
    ]
    told = list(history(nights, "warm.a"))
    assert not [line for line in told if "changed" in line]
    assert [line for line in told if line.startswith("warm.a")] == [
        "warm.a, no vLLM, H200:",
        "warm.a, no vLLM, no GPU:",
    ]


def test_each_feature_has_its_own_reason_on_the_page(cell):
    alike = {
        name: Result(name, "FLAKY", "FAIL", reason=f"differs\n{cause} cause", signature="differs")
        for name, cause in (("a.a", "ALPHA"), ("a.b", "BETA"))
    }
    text = page(Matrix([cell(alike)]), {})
    assert "ALPHA cause" in text
    assert "BETA cause" in text


# -- files ---------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_what_was_there(tmp_path):
    file = tmp_path / "it"
    file.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole(file, "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["it"]


def test_a_command_whose_disk_is_full_leaves_what_was_there(compilepool, written, cell, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("old")
    file = written(cell())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        status, _, err = compilepool("merge", file, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, out.read_text()) == (4, "old")
    assert "--out: " in err
    assert "cannot be written: File too large" in err


def test_a_link_stays_one_and_a_pipe_is_written_into(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "it")
    write_whole(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "it").chmod(0o640)
    write_whole(tmp_path / "link", "two")
    assert (tmp_path / "it").read_text() == "two"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["it", "link"]
    assert (tmp_path / "it").stat().st_mode & 0o777 == 0o640
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "three")
    assert os.read(reader, 100) == b"three"
    os.close(reader)


# -- what a newcomer stumbled over ---------------------------------------------------------------------


def test_a_failure_that_is_the_same_everywhere_is_in_the_summary(cell):
    cells = [
        cell({"warm.a": "FAIL", "warm.b": "XFAIL"}, run={"torch": version})
        for version in ("2.13.0", "2.14.1")
    ]
    told = "\n".join(markdown(Matrix(cells)))
    assert "**0 of 2 features are not the same everywhere; 1 are not as expected somewhere.**" in told
    assert "| warm.a | F | F |" in told
    assert "warm.b |" not in told


def test_a_cpu_build_beside_a_cuda_build_is_another_axis(cell):
    base, head = (
        cell(run={"torch": version, "cuda": cuda}) for version, cuda in (("2.11.0", "13.0"), ("2.13.0", ""))
    )
    assert list(differing_axes(base, head)) == ["torch", "build"]
    head.run["cuda"] = "13.2"
    assert list(differing_axes(base, head)) == ["torch"]


def test_what_regressed_and_is_known_has_its_link(cell):
    known = Result("warm.a", "XFAIL", "FAIL", bug="https://example.org/1", reason="no")
    (change,) = compare(cell(), cell({"warm.a": known}))
    assert change.text == "PASS -> XFAIL (FAIL): no (https://example.org/1)"


def test_what_has_not_changed_is_told_last():
    assert list(KINDS)[-1] == "same"


def test_one_link_is_told_once(cell):
    known = Result("warm.a", "XFAIL", "FAIL", bug="https://example.org/1")
    assert (
        row(cell({"warm.a": known}), cell({"warm.a": known}, run={"vllm": "0.32.0"})).count("example.org")
        == 1
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [("wram.a", "did you mean warm.a?"), ("zzz", "compilepool run --list --mode stress has")],
)
def test_a_feature_that_is_mistyped(compilepool, written, cell, name, hint):
    status, _, err = compilepool("matrix", written(cell()), "--feature", name)
    assert status == 4
    assert f"--feature: {name!r} is in none of these cells; {hint}" in err


def test_a_schema_of_tomorrow_may_have_other_keys():
    with pytest.raises(BadCell, match="schema 99 is not known; this release reads 1 to 2: a newer one may"):
        from_text('{"schema": 99}', "it.json")


def test_one_thing_is_shown_at_a_time(compilepool, written, cell):
    status, _, err = compilepool("matrix", written(cell()), "--markdown", "--defects")
    assert status == 4
    assert "not allowed with" in err


def test_no_file_of_expectations_is_made_by_a_slip(compilepool, written, cell, tmp_path):
    status, _, err = compilepool("expectations", "update", written(cell()), "--file", tmp_path / "nope.toml")
    assert status == 4
    assert "is not there; allowed: expectations, an empty file at first" in err
    assert not (tmp_path / "nope.toml").exists()
