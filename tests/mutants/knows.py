# SPDX-License-Identifier: Apache-2.0
"""Workers that know less than who sends the job."""

from __future__ import annotations

import os
import sys
from typing import Any

from mutants import REFERENCE, TORCH
from pytest_compilepool.conformance.mutant import mutant


def _taken_over(change: Any) -> None:
    """What a worker takes over is what `change` makes of the sender's surroundings."""
    from reference_pool import worker

    real = worker.take_over
    worker.take_over = lambda surroundings: real({**surroundings, **change(surroundings)})


@mutant(
    "A worker looks for modules only where a new interpreter does.",
    kills="knows.sys-path",
    requirements=REFERENCE,
)
def only_the_first_path(side: str) -> None:
    if side == "sidecar":
        here = os.getcwd()
        _taken_over(lambda sent: {"path": [one for one in sent["path"] if not one.startswith(here)]})


@mutant(
    "A worker's import path is the one at the start.", kills="knows.late-sys-path", requirements=REFERENCE
)
def the_path_at_the_start(side: str) -> None:
    if side == "sidecar":
        _taken_over(lambda sent: {"path": list(sys.path)})


@mutant("The sidecar has a module named timer.", kills="knows.module-names", requirements=REFERENCE)
def a_module_named_timer(side: str) -> None:
    if side == "sidecar":
        import types

        sys.modules["timer"] = types.ModuleType("timer")


@mutant("The main module of a worker is the sidecar's.", kills="knows.main-module", requirements=REFERENCE)
def the_sidecars_main_module(side: str) -> None:
    if side == "sidecar":
        _taken_over(lambda sent: {"main": None})


@mutant(
    "Only variables that torch and Triton have named are handed on.",
    kills="knows.environment-at-start",
    requirements=REFERENCE,
)
def known_variables_only(side: str) -> None:
    if side == "sidecar":
        known = ("TORCH", "TRITON_", "PYTHON", "PATH", "TMPDIR")
        _taken_over(
            lambda sent: {
                "environment": {
                    name: value for name, value in sent["environment"].items() if name.startswith(known)
                }
            }
        )


@mutant(
    "A worker's environment is the one at the start.", kills="knows.late-environment", requirements=REFERENCE
)
def the_environment_at_the_start(side: str) -> None:
    if side == "sidecar":
        _taken_over(lambda sent: {"environment": dict(os.environ)})


@mutant(
    "A variable that was removed stays in the worker.", kills="knows.late-environment", requirements=REFERENCE
)
def removed_variables_stay(side: str) -> None:
    if side == "sidecar":
        _taken_over(lambda sent: {"environment": {**os.environ, **sent["environment"]}})


@mutant(
    "A worker has the settings that torch starts with.", kills="knows.late-config", requirements=REFERENCE
)
def settings_are_not_handed_on(side: str) -> None:
    if side == "sidecar":
        _taken_over(lambda sent: {"settings": None})


@mutant("The workers may run on every CPU.", kills="knows.affinity", requirements=REFERENCE)
def every_cpu(side: str) -> None:
    if side == "sidecar":
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


@mutant("The workers of torch's pool may run on every CPU.", kills="knows.affinity", requirements=TORCH)
def every_cpu_of_torch(side: str) -> None:
    every_cpu(side)


@mutant("The sidecar goes to the root folder.", kills="knows.working-directory", requirements=REFERENCE)
def in_the_root_folder(side: str) -> None:
    if side == "sidecar":
        os.chdir("/")


@mutant("The second worker is in another folder.", kills="knows.working-directory", requirements=REFERENCE)
def the_second_worker_is_elsewhere(side: str) -> None:
    if side == "sidecar":
        import os

        from reference_pool import sidecar

        real = sidecar.Sidecar.fork

        def fork(self):
            here = os.getcwd()
            if self.workers:
                os.chdir("/")
            try:
                return real(self)
            finally:
                os.chdir(here)

        sidecar.Sidecar.fork = fork
