# SPDX-License-Identifier: Apache-2.0
"""What the environment asks of the pool in vLLM, and how many processes follow from it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_compilepool.pool import policy
from pytest_compilepool.resources import Gpus

if TYPE_CHECKING:
    from pytest_compilepool.resources import Cpus, Memory
    from pytest_compilepool.torch_compat import Capabilities

PROCESSES = policy.VLLM_VARIABLE
READY_TIMEOUT = "VLLM_COMPILE_POOL_READY_TIMEOUT"
JOB_TIMEOUT = "VLLM_COMPILE_POOL_JOB_TIMEOUT"
EVENTS = "VLLM_COMPILE_POOL_EVENTS"

_READY_SECONDS = 60.0  # a sidecar is ready after 3-7 s; on a machine that is busy loading a model, after more
_JOB_SECONDS = 600.0  # the slowest kernels that were met take minutes; what takes longer will not come


class BadSetting(ValueError):
    """A variable that cannot be followed. The message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    processes: "auto" or a whole number as text; ready_timeout, job_timeout: seconds that the first kernel waits for
    the pool, and any kernel for its result; events: a file that events are appended to as JSON lines, or None.
    """

    processes: str
    ready_timeout: float = _READY_SECONDS
    job_timeout: float = _JOB_SECONDS
    events: str | None = None


def from_environment(environ: Mapping[str, str] | None = None) -> Settings | None:
    """What the environment asks for, `os.environ` if None. None where VLLM_COMPILE_PROCESSES is not set or empty.

    Raises BadSetting for a value that is not allowed.
    """
    environ = os.environ if environ is None else environ
    text = environ.get(PROCESSES, "").strip()
    if not text:
        return None
    if text.lower() != "auto":
        allowed = f"auto, or a whole number from 1 to {policy.MAX_PROCESSES}"
        try:
            policy.parse_processes(text, PROCESSES)
        except policy.BadProcesses:
            raise BadSetting(
                f"{PROCESSES}: {text!r} is not a number of compile processes; allowed is {allowed}"
            ) from None
    return Settings(
        text.lower(),
        _seconds(environ, READY_TIMEOUT, _READY_SECONDS),
        _seconds(environ, JOB_TIMEOUT, _JOB_SECONDS),
        environ.get(EVENTS, "").strip() or None,
    )


def _seconds(environ: Mapping[str, str], name: str, otherwise: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return otherwise
    # Not float() alone: that takes "1_0", "nan" and the digits of other scripts.
    number = float(text) if re.fullmatch(r"\+?([0-9]{1,6}(\.[0-9]*)?|\.[0-9]+)", text) else math.nan
    if not 0 < number <= 86400:
        raise BadSetting(f"{name}: {text!r} is not a time; allowed are seconds, above 0 and up to 86400")
    return number


def decide(
    settings: Settings,
    ranks: int,
    capabilities: Capabilities,
    *,
    cpus: Cpus | None = None,
    memory: Memory | None = None,
) -> policy.Decision:
    """How many processes this one gets. ranks: workers of this engine on this host, which share its CPUs.

    capabilities: of the torch that is here. cpus, memory: measured where None. 1 process means no pool.
    """
    return policy.decide(
        capabilities=capabilities,
        # Nothing else of the environment: vLLM has written 1 into torch's own variable.
        environ={PROCESSES: settings.processes},
        start_method="subprocess",
        gpus=Gpus(max(1, ranks), "ranks on this host"),
        cpus=cpus,
        memory=memory,
        vllm_imported=True,
    )


def why_one(decision: policy.Decision) -> str:
    """Why it is one process, which is no pool, and what can be done about it."""
    if decision.unsafe_because is not None:
        return decision.unsafe_because
    formula = next(reason for reason in decision.reasons if reason.name == "policy")
    if decision.decided_by.value == "auto":
        return (
            f"{PROCESSES}=auto is {formula.value}, which is {formula.processes} process here; a number, such as "
            f"{PROCESSES}=2, is taken as it is"
        )
    return decision.why
