# SPDX-License-Identifier: Apache-2.0
"""What a cell tells of its machine: what matters, no secret, and no place on it."""

from __future__ import annotations

import pytest

from pytest_compilepool.matrix import runinfo


def test_variables_that_matter_without_secrets_and_places():
    told = {
        "TORCH_LOGS": "+inductor",
        "TRITON_PRINT_AUTOTUNING": "1",
        "VLLM_USE_V1": "1",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    kept_back = (
        "HOME",
        "HF_TOKEN",
        "VLLM_API_KEY",
        "TORCH_SECRET",
        "TRITON_PASSWORD",
        "TORCHINDUCTOR_CACHE_DIR",
        "CUDA_HOME",
    )
    found = runinfo.machine({**told, **dict.fromkeys(kept_back, "x"), "VLLM_CACHE_ROOT": "/home/me"})
    assert found["environment"] == told


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, ""),
        ({"GITHUB_RUN_ID": "7", "GITHUB_REPOSITORY": "me/it"}, "https://github.com/me/it/actions/runs/7"),
        (
            {"GITHUB_RUN_ID": "7", "GITHUB_REPOSITORY": "me/it", "GITHUB_SERVER_URL": "https://git.example"},
            "https://git.example/me/it/actions/runs/7",
        ),
        (
            {"BUILDKITE_BUILD_URL": "https://buildkite.com/vllm/ci/builds/7"},
            "https://buildkite.com/vllm/ci/builds/7",
        ),
    ],
)
def test_the_address_of_the_job(environ, address):
    assert runinfo.ci(environ) == address
    assert runinfo.machine(environ).get("ci", "") == address


def test_what_every_machine_tells():
    found = runinfo.machine({})
    assert found["cpus"] >= 1
    assert found["memory_limit"] > 2**28
    assert len(found["host"]) == 12
    assert found["os"]
    assert runinfo.as_text(0.0) == "1970-01-01T00:00:00+00:00"
