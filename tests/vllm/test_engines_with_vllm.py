# SPDX-License-Identifier: Apache-2.0
"""The fixtures that start vLLM engines, with vLLM: real engines, in this process and in fresh ones."""

from __future__ import annotations

import pytest

from pytest_compilepool import vllm_compat

HAS_VLLM = vllm_compat.vllm_version() is not None


needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="needs vLLM, which is not installed here")


HERE = """
import os
import pytest

from pytest_compilepool.vllm import plugin
from pytest_compilepool.vllm.engines import census

PROMPTS = [{"prompt_token_ids": [5, 6, 7]}]
kept = []  # what is collected is shut down by vLLM itself

@pytest.fixture(autouse=True)
def environment():
    before = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    yield
    after = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    assert after == before

def gate():
    # Between torch's compiles and a pool, while a worker lives.
    methods = census.take()["methods"].items()
    return [name for name, file in methods if name.startswith("Async") and file.startswith("pytest_compilepool")]

def whats():
    return [event.what for event in plugin.current().events.events()]

def generate(engine):
    from vllm import SamplingParams
    (one,) = engine.generate(PROMPTS, SamplingParams(max_tokens=3, detokenize=False), use_tqdm=False)
    assert len(one.outputs[0].token_ids) == 3

def test_none(vllm_engine):
    # vLLM calls its plugins here, for the only time.
    engine = vllm_engine(processes=1, max_num_seqs=2)
    assert engine.llm_engine.vllm_config.scheduler_config.max_num_seqs == 2
    assert plugin.current() is None
    generate(engine)

def test_two(vllm_engine, fresh_vllm_cache):
    engine = vllm_engine()
    kept.append(engine)
    assert plugin.current().pool.processes == 2
    assert {"warm", "attached", "warmed-up"} <= set(whats())
    assert engine.llm_engine.vllm_config.model_config.max_model_len == 128
    assert any((fresh_vllm_cache / "torch_compile_cache").iterdir())
    assert gate()
    generate(engine)

@pytest.mark.compilepool(processes=3)
def test_three(vllm_engine):
    import torch
    assert "shutdown" in whats()
    assert not gate() and not torch.distributed.is_initialized()
    was = plugin.current()
    with pytest.raises(ValueError, match="max_model_len"):
        vllm_engine(max_model_len=10**6)
    assert plugin.current() is was
    vllm_engine()
    assert plugin.current().pool.processes == 3
    assert whats()[0] == "warm"
"""


@needs_vllm
def test_engines_in_this_process_and_nothing_is_left(inner):
    result = inner(
        HERE, "--compilepool-leaks=fail", "--compilepool-processes=2", "-p", "no:randomly", timeout=300
    )
    result.assert_outcomes(passed=3)


@needs_vllm
def test_cold_and_warm_in_fresh_interpreters(inner):
    result = inner(
        """
        import sys

        def test_phases(vllm_compile_phases):
            cold, warm = vllm_compile_phases.cold(processes=2), vllm_compile_phases.warm()
            for run in (cold, warm):
                assert run.error == "" and run.survivors == [] and run.engine.left == []
            assert cold.engine.counters["vllm.num_compiled_artifacts_saved"] > 0
            assert "vllm.num_compiled_artifacts_saved" not in warm.engine.counters
            # Weights that say something, and the same.
            assert cold.engine.tokens == warm.engine.tokens
            assert len({token for one in cold.engine.tokens for token in one}) > 1
            assert cold.events[0]["what"] == "warm" and warm.events[0]["what"] == "deferred"
            assert not {"torch", "vllm"} & set(sys.modules)
        """,
        "--compilepool-leaks=fail",
        timeout=300,
    )
    result.assert_outcomes(passed=1)
