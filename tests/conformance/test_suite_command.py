# SPDX-License-Identifier: Apache-2.0
"""`compilepool run` and `compilepool mutants` refuse with one sentence and the status 4, under xdist as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_suites import FEATURE, SCENARIO, compilepool

from pytest_compilepool.matrix.cell import read_cell

TESTS = Path(__file__).parents[1]
MUTANTS = str(TESTS / "mutants")
REFERENCE = "reference_pool.requirements:ReferenceRequirements"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "--group=nosuch", "-n2"), "run: --group: 'nosuch' is not allowed; allowed: caches, count"),
        (
            ("run", "--group=warm,,"),
            "run: --group: 'warm,,' is not allowed; allowed: names separated by commas",
        ),
        (("run", "--mode="), "run: --mode: '' is not allowed; allowed: smoke, standard, stress"),
        (("run", "--interpreter=old"), "run: --interpreter: 'old' is not allowed; allowed: fork, new"),
        (("run", "-n", "²"), "run: -n: '²' is not allowed; allowed: a whole number from 0 to 9999, or auto"),
        (("run", "--expectations=nowhere.toml"), "run: nowhere.toml: cannot be read"),
        (
            ("run", "--requirements=nowhere:Pool"),
            "run: --requirements: 'nowhere:Pool': nowhere cannot be imp",
        ),
        (("run", "--colour"), "run: there is no option --colour (see compilepool run --help)"),
        (("mutants", "nowhere"), "mutants: 'nowhere' is no package of mutants"),
        (
            ("mutants", MUTANTS, "--group=warm,nosuch"),
            "mutants: --group: 'nosuch' is not allowed; allowed: ca",
        ),
        (("mutants", MUTANTS, "-n0"), "mutants: -n: '0' is not allowed; allowed: a whole number from 1 to"),
        (("mutants", MUTANTS, "-nx"), "mutants: -n: 'x' is not allowed; allowed: a whole number from 1 to"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--list",)], ids=["", "list"])
def test_bad_arguments(tmp_path, arguments, text, more):
    status, output = compilepool(*arguments, *more, folder=tmp_path)
    assert status == 4
    assert f"compilepool {text}" in output
    assert "Traceback" not in output


def test_a_run_that_is_refused_leaves_no_cell_of_an_earlier_one(tmp_path):
    """A machine that has lost what is required: yesterday's cell must not pass for today's."""
    (tmp_path / "cell.json").write_text("of yesterday")
    arguments = ("run", f"--requirements={REFERENCE}", "--cell=cell.json", "--require=python==2.7")
    status, output = compilepool(*arguments, folder=tmp_path, PYTHONPATH=str(TESTS))
    assert status == 4
    assert "--require: python==2.7 is required, and here is" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("run", "--list"), ("mutants", MUTANTS, "--list")])
def test_from_a_folder_that_is_gone(tmp_path, arguments):
    (tmp_path / "gone").mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from pytest_compilepool.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 4)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("changed", ["kills=(1,)", "kills=()", "requirements=None"])
def test_a_mutant_that_is_none(tmp_path, changed):
    given = {"kills": 'kills="warm.ready-when-a-worker-answered"', "requirements": 'requirements="a:B"'}
    given[changed.split("=")[0]] = changed
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "__init__.py").touch()
    (tmp_path / "wrong" / "warm.py").write_text(
        "from pytest_compilepool.conformance.mutant import mutant\n"
        f'@mutant("Wrong.", {", ".join(given.values())})\ndef wrong(side): ...\n'
    )
    status, output = compilepool("mutants", "wrong", folder=tmp_path)
    assert status == 4
    assert f"{changed.split('=')[0]} = " in output
    assert "Traceback" not in output


def test_a_run_that_tries_nothing_is_no_success(tmp_path):
    status, output = compilepool(
        "run",
        "--group=warm",
        f"--requirements={REFERENCE}",
        "--",
        "--collect-only",
        folder=tmp_path,
        PYTHONPATH=str(TESTS),
    )
    assert status == 5, output


def test_the_pool_that_is_tried_is_the_one_that_was_named_last(tmp_path):
    pytest.importorskip("xdist")
    status, output = compilepool(
        "run",
        "--group=warm",
        "-n1",
        f"--requirements={REFERENCE}",
        "--",
        "--compilepool-requirements=again:Renamed",
        folder=tmp_path,
        PYTHONPATH=f"{TESTS}{os.pathsep}{_renamed(tmp_path)}",
    )
    assert status == 0, output
    assert "the renamed pool: " in output


def _renamed(folder):
    (folder / "again.py").write_text(
        "from reference_pool.requirements import ReferenceRequirements\n"
        "class Renamed(ReferenceRequirements):\n    name = 'the renamed pool'\n"
    )
    return folder


def test_the_cell_of_a_run_that_was_cut_short_says_so(tmp_path):
    status, _ = compilepool(
        "run",
        "--group=warm",
        "-n0",
        f"--requirements={REFERENCE}",
        "--expectations=wrong.toml",
        "--cell=cell.json",
        "--",
        "--maxfail=1",
        folder=_with_a_wrong_expectation(tmp_path),
        PYTHONPATH=str(TESTS),
    )
    assert status == 1
    cell = read_cell(tmp_path / "cell.json")
    assert not cell.complete


def _with_a_wrong_expectation(folder):
    (folder / "wrong.toml").write_text(
        '[[expect]]\nfeature = "warm.ready-when-a-worker-answered"\nstatus = ["FAIL"]\nbug = "https://example.org"\n'
    )
    return folder


def test_list_whose_reader_has_enough(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_compilepool.cli", "run", "--list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""


def test_list_of_torchs_pool_by_its_name_knows_its_defects(tmp_path, pool_here):
    name = "pytest_compilepool.suites.requirements:TorchPool"
    status, output = compilepool(
        "run", "--list", "--group=submit", "--mode=stress", f"--requirements={name}", folder=tmp_path
    )
    assert status == 0
    assert "known: https://" in output


def test_a_feature_is_chosen_by_the_name_that_the_list_has(own_suite):
    both = FEATURE + FEATURE.replace("jobs.add", "jobs.add-again")
    again = SCENARIO.split("@feature")[1].replace("jobs.add", "jobs.add-again")
    scenarios = SCENARIO + "\n@feature" + again.replace("def test_add(", "def test_more(")
    result = own_suite("-k", "jobs.add-again", features=both, scenarios=scenarios)
    result.assert_outcomes(passed=1, deselected=1)
    result = own_suite("-k", "jobs.add", features=both, scenarios=scenarios)
    result.assert_outcomes(passed=2)
