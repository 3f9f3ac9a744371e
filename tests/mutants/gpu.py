# SPDX-License-Identifier: Apache-2.0
"""Pools that are in the way of a GPU; they can be tried only where there is one."""

from __future__ import annotations

import glob
from typing import Any

from mutants import REFERENCE
from pytest_compilepool.conformance.mutant import mutant


@mutant("The sidecar opens the GPU.", kills="gpu.no-device-files", requirements=REFERENCE)
def the_sidecar_opens_the_gpu(side: str) -> None:
    if side == "sidecar":
        for path in glob.glob("/dev/nvidia[0-9]*")[:1]:
            globals()["_kept"] = open(path, "rb")  # noqa: SIM115 (kept open)


@mutant("Each worker has a context of its own.", kills="gpu.no-memory", requirements=REFERENCE)
def workers_have_contexts(side: str) -> None:
    if side == "sidecar":
        from reference_pool import worker

        real = worker.run

        def run(payload: bytes) -> tuple[int, bytes]:
            if b"touch_and_wait_for" in payload:
                import torch

                globals()["_kept"] = torch.ones(1, device="cuda")
            return real(payload)

        worker.run = run


@mutant(
    "Jobs that are under way during a capture are exchanged.",
    kills="gpu.capture-beside-jobs",
    requirements=REFERENCE,
)
def results_are_exchanged(side: str) -> None:
    from mutants.submit import result_to_the_wrong_job

    result_to_the_wrong_job(side)


@mutant("A quiesce only sets its flag.", kills="gpu.capture-after-quiesce", requirements=REFERENCE)
def a_quiesce_only_sets_its_flag(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        def quiesce(self: Any) -> None:
            self.awake = False

        sidecar.Sidecar.quiesce = quiesce


@mutant(
    "A pool that is made after CUDA was used does no job.",
    kills="gpu.job-after-capture",
    requirements=REFERENCE,
)
def no_job_after_cuda(side: str) -> None:
    if side == "parent":
        import sys

        from reference_pool import ReferencePool, errors

        real = ReferencePool.submit

        def submit(self: Any, function: Any, *args: Any) -> Any:
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_initialized() and function.__name__ == "module_names":
                raise errors.PoolError("0 active drivers")
            return real(self, function, *args)

        ReferencePool.submit = submit
