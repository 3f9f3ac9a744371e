# SPDX-License-Identifier: Apache-2.0
"""The bundled suite: manifest and code agree, a pool can keep all of it, and what is wrong is noticed."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import tiers
from small_suites import compilepool

from pytest_compilepool.conformance import mutation, subjects
from pytest_compilepool.conformance.definition import EXPECTATIONS, MANIFEST
from pytest_compilepool.conformance.expectations import read_expectations, stale_entries
from pytest_compilepool.conformance.manifest import needs_of, read_manifest
from pytest_compilepool.conformance.mutation import read_mutants, scenarios, try_all, without_mutant
from pytest_compilepool.conformance.subjects import ask
from pytest_compilepool.matrix.cell import read_cell
from pytest_compilepool.suite import PACKAGE, bundled

TESTS = Path(__file__).parents[1]
FEATURES = read_manifest(bundled() / MANIFEST)
MUTANTS = read_mutants(TESTS / "mutants", FEATURES)
WHERE = scenarios(bundled(), PACKAGE)
REFERENCE = "reference_pool.requirements:ReferenceRequirements"


def test_every_feature_has_its_test_and_every_test_its_feature():
    assert set(FEATURES) == set(WHERE)


def test_a_feature_stands_in_the_file_of_its_group():
    for identifier, (module, _) in WHERE.items():
        # One file, or several of the same first name where there is much of it.
        assert f"{module}_".startswith(f"{PACKAGE}.test_{identifier.partition('.')[0]}_")


def test_what_compiles_kernels_has_time_for_it():
    """Where four processes shared two CPUs, 20 s of an idle machine were 100."""
    for one in FEATURES.values():
        if {"kernels", "triton", "gpu"} & set(one.needs):
            assert one.limit >= 150, one.id


def test_expectations_are_for_features_and_none_is_stale():
    found = read_expectations(bundled() / EXPECTATIONS, FEATURES)
    assert found
    assert stale_entries(found) == []


def test_scenarios_do_not_sleep():
    """They wait for events, looking every now and then, or watch for a named time that nothing happens."""
    for file in bundled().glob("test_*.py"):
        assert not re.search(r"\bsleep\((?!0\.\d+\)|_WATCHED\))", file.read_text()), file


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.thorough
def test_the_reference_pool_keeps_all_that_is_asked_of_it(tmp_path):
    status, output = compilepool(
        "run",
        "--mode=stress",
        "-n2",
        f"--requirements={REFERENCE}",
        "--cell=cell.json",
        folder=tmp_path,
        timeout=1450,
        PYTHONPATH=str(TESTS),
    )
    assert status == 0, output
    cell = read_cell(tmp_path / "cell.json")
    assert set(cell.results) == set(FEATURES)
    assert not cell.not_run
    assert cell.totals.keys() <= {"PASS", "SKIP", "UNSUPPORTED"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_torch_that_is_here_gives_nothing_unexpected(tmp_path, pool_here):
    status, output = compilepool("run", "--ci", "-n2", "--cell=cell.json", folder=tmp_path, timeout=1450)
    assert status == 0, output
    cell = read_cell(tmp_path / "cell.json")
    assert cell.totals["PASS"] >= 30
    assert cell.run["torch_git"]
    assert cell.run["defaults"]
    assert cell.timings.keys() >= {"warm", "ready", "shutdown"}
    # Wherever it was run from, nothing was written there.
    assert [path.name for path in tmp_path.iterdir()] == ["cell.json"]


MUTANTS_APART = 6
"""How many further, where not all of them are tried: at least one of each group, whatever it takes."""

GROUPS = sorted({one.group for one in MUTANTS})


@pytest.fixture(scope="session")
def pools_are_asked_once():
    """What each can do here is the same for every group; to be asked it imports torch."""
    with pytest.MonkeyPatch.context() as patch:
        asked = functools.cache(lambda spec: ask(spec, needs_of(FEATURES.values())))
        patch.setattr(mutation, "ask", lambda spec, needs: asked(spec))
        yield


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("group", GROUPS)
def test_the_mutants_are_noticed(group, request, pools_are_asked_once):
    """Several at the same time, which is what `compilepool mutants -n 8 --group GROUP` does: mostly they wait."""
    chosen = [one for one in MUTANTS if one.group == group]
    if not tiers.ALL:
        chosen = chosen[::MUTANTS_APART]
    if any(one.requirements == subjects.DEFAULT for one in chosen):
        request.getfixturevalue("pool_here")
    # Those of kernels do not wait: they compile.
    at_once = 2 if group == "kernels" else 8
    results = try_all(chosen, FEATURES, WHERE, at_once, lambda result: None)
    bad = [_told(result) for result in results if result.tried and not result.good]
    assert not bad, "\n".join(bad)
    untested = [result for result in results if not result.tried]
    if untested:
        why = {why for result in untested for why in result.untested.values()}
        pytest.skip(
            f"{len(untested)} of {len(results)} mutants cannot be tried here: {'; '.join(sorted(why))}"
        )


def _told(result):
    killed = {name: f"{verdict.status}: {verdict.text[:500]}" for name, verdict in result.killed.items()}
    return f"{result.mutant.id}: survived: {result.survived}; broken: {result.broken}; killed: {killed}"


def test_there_are_mutants_for_every_feature():
    assert len(MUTANTS) >= 60
    assert without_mutant(FEATURES, MUTANTS) == []


def test_list_names_every_feature_and_tries_none(tmp_path):
    status, output = compilepool("run", "--list", "--mode=stress", folder=tmp_path)
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()[:-1]] == list(FEATURES)


def test_list_says_what_is_known_of_the_torch_that_is_here(tmp_path, pool_here):
    status, output = compilepool("run", "--list", "--group=gpu,submit", "--mode=stress", folder=tmp_path)
    assert status == 0
    assert "known: https://" in output
    assert re.search(r"^gpu\.\S+ .*\((not tested here: gpu: |needs )", output, re.MULTILINE)
    assert "torch's compile pool: " in output.splitlines()[-1]


def test_list_of_another_pool_knows_none_of_the_defects_of_torchs(tmp_path):
    status, output = compilepool(
        "run", "--list", f"--requirements={REFERENCE}", folder=tmp_path, PYTHONPATH=str(TESTS)
    )
    assert status == 0
    assert "known: " not in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "--mode=fast"), "'fast' is not allowed; allowed: smoke, standard, stress"),
        (("run", "--list", "--mode=fast"), "'fast' is not allowed; allowed: smoke, standard, stress"),
        (("run", "--list", "--group=nobody"), "'nobody' is not allowed; allowed: "),
        (("run", "--requirements=nobody"), "--requirements: 'nobody' is not allowed; allowed: module:Class"),
        (("run", "-n", "many"), "-n: 'many' is not allowed; allowed: a whole number from 0 to 9999, or auto"),
        (
            ("run", "--requirements=nowhere:Pool"),
            "--requirements: 'nowhere:Pool': nowhere cannot be imported",
        ),
        (("run", "--expectations=nowhere.toml"), "nowhere.toml: cannot be read"),
        (("mutants", "nowhere"), "'nowhere' is no package of mutants"),
    ],
)
def test_bad_arguments(tmp_path, arguments, text):
    status, output = compilepool(*arguments, folder=tmp_path)
    assert status == 4
    assert text in output
    assert "Traceback" not in output


def test_the_page_on_failures_names_features_that_there_are():
    page = (TESTS.parent / "docs" / "explanation" / "failures.md").read_text()
    groups = {identifier.partition(".")[0] for identifier in FEATURES}
    named = {name for name in re.findall(r"`([a-z]+\.[a-z0-9-]+)`", page) if name.partition(".")[0] in groups}
    assert len(named) >= 60
    assert named <= set(FEATURES)
