# SPDX-License-Identifier: Apache-2.0
"""Cold and warm starts: a miss and a save, then a hit and nothing compiled; and what breaks that is found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import starts

from pytest_compilepool.fresh.callables import BadInput
from pytest_compilepool.phases import Phase, PhaseFailed, WarmStartCompiled

torch = pytest.importorskip("torch", reason="cold and warm starts are torch.compile's")

pytestmark = pytest.mark.usefixtures("compiler_is_known")

KERNELS = ("pointwise", "softmax", "layer_norm")


@pytest.fixture
def offline(compile_phases, offline_here):
    return compile_phases.using(target="cuda:90")


def test_cold_then_warm_with_the_pool_on_and_off(offline):
    from pytest_compilepool.workloads.torch_programs import run_all

    counters = {}
    for processes in (1, 2):
        phases = offline.using(processes=processes)
        cold = phases.cold(run_all, KERNELS)
        assert cold.counters["aot_autograd.autograd_cache_miss"] == 3
        assert cold.counters["inductor.fxgraph_cache_miss"] == 3
        assert cold.artifacts_saved == 3
        assert cold.artifacts_loaded == 0
        assert cold.in_process_compiles == (4 if processes == 1 else 0)
        assert sum(cold.workers.values()) == (0 if processes == 1 else 3)
        assert {job.kernel.split("_")[1] for job in cold.jobs} == (
            set() if processes == 1 else {"poi", "per"}
        )
        warm = phases.warm(run_all, KERNELS)
        assert warm.counters["aot_autograd.autograd_cache_hit"] == 3
        assert warm.artifacts_saved == 0
        assert warm.artifacts_loaded == 3
        assert warm.jobs == ()
        assert warm.in_process_compiles == 0
        assert warm.output == cold.output
        counters[processes] = {
            (phase.name, name): number
            for phase in (cold, warm)
            for name, number in phase.counters.items()
            if not name.startswith(("pool.", "inductor.async_compile_cache", "metrics."))
        }
    assert counters[1] == counters[2]


def test_a_warm_start_that_compiles_is_found(offline):
    from pytest_compilepool.workloads.torch_programs import run_all

    phases = offline.using(processes=2)
    phases.cold(run_all, KERNELS[:1])
    with pytest.raises(WarmStartCompiled) as caught:
        phases.warm(run_all, KERNELS[:2])
    text = str(caught.value)
    assert "aot_autograd.autograd_cache_miss moved by 1" in text
    assert "aot_autograd.autograd_cache_saved moved by 1" in text
    assert "1 jobs went to the pool: triton_per_fused__softmax" in text
    assert "new files in the caches: " in text
    # A cold start after it has caches of its own.
    assert phases.cold(run_all, KERNELS[:1]).artifacts_saved == 1


def test_on_the_cpu(compile_phases):
    phases = compile_phases.using(processes=1)
    cold = phases.cold(starts.model, torch.ones(8))
    assert cold.artifacts_saved == 1
    assert any(file.endswith(".so") for file in cold.files)
    warm = phases.warm(starts.model, torch.ones(8))
    assert warm.counters["aot_autograd.autograd_cache_hit"] == 1
    assert warm.artifacts_saved == 0
    assert torch.equal(warm.output, cold.output)
    # A library that is gone must be compiled again, though every cache is hit.
    library = next(file for file in cold.files if file.endswith(".so"))
    shutil.rmtree((phases._caches / "caches" / library).parent)
    with pytest.raises(WarmStartCompiled, match="new files in the caches"):
        phases.warm(starts.model, torch.ones(8))


@pytest.mark.thorough
def test_what_no_cache_was_asked_for_is_found(compile_phases):
    phases = compile_phases.using(processes=1)
    phases.cold(starts.one_with_caches_and_one_without, torch.ones(8))
    with pytest.raises(WarmStartCompiled) as caught:
        phases.warm(starts.one_with_caches_and_one_without, torch.ones(8))
    assert "2 graphs were asked for, and 1 loaded from a cache" in str(caught.value)
    assert re.search(r"code was generated for \d\.\d{3} s", str(caught.value))


@pytest.mark.thorough
def test_a_library_that_was_written_again_is_new(compile_phases):
    phases = compile_phases.using(processes=1)
    phases.cold(starts.writes_again, torch.ones(8))
    with pytest.raises(WarmStartCompiled, match=r"1 new files in the caches: inductor/of_mine.so"):
        phases.warm(starts.writes_again, torch.ones(8))


@pytest.mark.thorough
def test_counters_that_were_cleared_prove_nothing(compile_phases):
    phases = compile_phases.using(processes=1)
    phases.cold(starts.clears_the_counters, torch.ones(8))
    with pytest.raises(WarmStartCompiled, match="it cannot be told: torch: cleared meanwhile"):
        phases.warm(starts.clears_the_counters, torch.ones(8))


def test_what_nobody_tells_is_not_called_nothing():
    from pytest_compilepool.fresh.order import Answer

    phase = Phase("warm", None, Counter(), (), {}, (), Answer(deaf=True))
    with pytest.raises(BadInput, match="this Triton tells nobody what it compiles"):
        print(phase.in_process_compiles)
    assert phase.compiled() == []


def test_files_right_below_the_caches_are_looked_at():
    from pytest_compilepool.fresh.order import Answer

    phase = Phase("warm", None, Counter(), (), {}, ("alone", "inductor/fxgraph/a/b"), Answer())
    assert phase.compiled() == ["1 new files in the caches: inductor/fxgraph/a/b"]


def test_a_function_that_compiles_nothing_is_no_warm_start(compile_phases):
    phases = compile_phases.using(processes=1)
    phases.cold(starts.give_back, 1)
    with pytest.raises(WarmStartCompiled, match="nothing was loaded from a cache either"):
        phases.warm(starts.give_back, 1)


def test_the_whole_traceback_comes_back(compile_phases):
    with pytest.raises(PhaseFailed) as caught:
        compile_phases.using(processes=1).cold(starts.calls_it)
    text = str(caught.value)
    assert "KeyError: 'planted far away'" in text
    assert "in raises_far_away" in text
    assert "fresh/child.py" not in text
    assert "in calls_it" in text


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda phases: phases.cold(lambda: 1), "is a lambda, which a fresh interpreter cannot import"),
        (lambda phases: phases.warm(starts.whoami), "there is nothing to be warm from; call cold() first"),
        (lambda phases: phases.cold(starts.give_back, open), None),
        (
            lambda phases: phases.cold(starts.give_back, lambda: 1),
            "this cannot be sent to a fresh interpreter",
        ),
        (
            lambda phases: phases.using(processes=0),
            "processes: 0 is not a number of compile processes; allowed is a whole number from 1",
        ),
        (lambda phases: phases.using(target="cuda"), "target: 'cuda' is not allowed; allowed: cuda:75"),
    ],
)
def test_bad_input(compile_phases, call, sentence):
    with pytest.raises(BadInput) as caught:
        call(compile_phases.using(processes=1))
    assert (sentence or "output is of type builtins.builtin_function_or_method; allowed are tensors") in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_the_fixture_takes_options_and_marker(inner, offline_here):
    result = inner(
        """
        import pytest
        def test_flag(compile_phases):
            assert (compile_phases.processes, compile_phases.limit) == (3, 77.0)

        @pytest.mark.compilepool(processes=2, target="cuda:90", ready_timeout=5)
        def test_marker(compile_phases, compile_parity):
            assert (compile_phases.processes, compile_phases.target) == (2, "cuda:90")
            assert compile_phases.ready_timeout == 5
            assert compile_parity.target == "cuda:90"
        """,
        "--compilepool-processes=3",
        "--compilepool-fresh-timeout=77",
    )
    result.assert_outcomes(passed=2)


def test_a_phase_counts_by_worker():
    from pytest_compilepool.fresh.order import Answer
    from pytest_compilepool.records import JobRecord

    jobs = [
        JobRecord(1, "f", "", "", 0.0, 10, outcome="done"),
        JobRecord(2, "f", "", "", 0.0, 11, outcome="done"),
        JobRecord(3, "f", "", "", 0.0, 10, outcome="done"),
        JobRecord(4, "f", "", "", 0.0, 11, outcome="failed"),
        JobRecord(5, "f", "", "", 0.0),
    ]
    phase = Phase("cold", None, {}, tuple(jobs), {}, (), Answer())
    assert phase.workers == {10: 2, 11: 1}


WRONG = """
import pytest, starts

def test_lambda(compile_phases):
    compile_phases.using(processes=1).cold(lambda: 1)

def test_using(compile_phases):
    compile_phases.using(processes=0)

def test_raises(compile_phases):
    compile_phases.using(processes=1).cold(starts.calls_it)

def test_name(compile_phases):
    compile_phases.using(processes=1).cold(starts.whoami).counters["not.there"]

def test_check(compile_parity):
    compile_parity.check(starts.whoami, processes=(1,))

def test_differs(compile_parity):
    compile_parity.check(starts.whoami, processes=(1, 2), repeat=1, compile=False, min_parallel=0)
"""


def test_what_is_wrong_is_told_at_the_line_of_the_test(inner, pytester):
    shutil.copy(starts.__file__, pytester.path)
    result = inner(WRONG, "-p", "no:randomly", "--tb=short")
    result.assert_outcomes(failed=6)
    out = result.stdout.str()
    frames = re.findall(r"^(\S+\.py):\d+: in ", out, re.MULTILINE)
    assert frames == ["test_inner.py"] * 6, out


@pytest.mark.thorough
def test_a_run_that_is_repeated_by_hand_says_how_it_went(compile_phases):
    phases = compile_phases.using(processes=1)
    with pytest.raises(PhaseFailed):
        phases.cold(starts.calls_it)
    folder = phases._caches / "run-1"
    command = [sys.executable, "-m", "pytest_compilepool.fresh.child", str(folder)]
    caches = {name: str(folder / "again") for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    environment = {**os.environ, **caches, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert f"the answer is in {folder / 'answer.json'}" in done.stdout
    assert "KeyError in stage 'call the function'" in done.stdout
