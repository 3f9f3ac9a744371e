# SPDX-License-Identifier: Apache-2.0
"""How many processes a compile pool gets, and why: every word that was said about it, in order.

The rule is `min(8, cpus // gpus - 1)`, at least 1; a number from outside replaces it; memory may
lower the number; and where a pool would be unsafe it is 1, which means that there is no pool.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_compilepool.resources import (
    Cpus,
    Gpus,
    Memory,
    gpu_count,
    memory_budget,
    start_environment,
    usable_cpus,
)
from pytest_compilepool.words import counted, show

if TYPE_CHECKING:
    from pytest_compilepool.torch_compat import Capabilities

MAX_PROCESSES = 1024
"""The largest number that is taken.

A typing error should be refused before it starts thousands of processes, and a number that somebody
took from their CPU count should not: the largest two-socket machines have fewer than 1024 hardware
threads. Inductor never goes beyond 32 by itself. Each worker also costs the sidecar 4 file descriptors.
"""

THREADS_VARIABLE = "TORCHINDUCTOR_COMPILE_THREADS"
VLLM_VARIABLE = "VLLM_COMPILE_PROCESSES"
START_VARIABLE = "TORCHINDUCTOR_WORKER_START"
INI = "ini compilepool_processes"
FLAG = "--compilepool-processes"
MARKER = "@pytest.mark.compilepool(processes=...)"
FIXTURE = "fixture"

_POLICY_MAX = 8
_USUAL_START_METHODS: tuple[str, ...] = ("subprocess", "fork", "spawn")
_MIB = 1 << 20


@dataclass(frozen=True)
class PoolCost:
    """What a pool takes, in bytes: the sidecar, and each worker while it compiles."""

    sidecar: int
    worker: int


# Measured with Triton kernels compiled for sm_90 in real pools of 1, 2 and 4 workers, in MiB.
# torch 2.13.0+cpu, triton 3.7.1:
#   worker USS: fresh 3-5; after 1 pointwise kernel 19; after about 20 pointwise, softmax and matmul
#   kernels 50; after about 40 of them 71 (peak 85). It grows with what was compiled: 130 matmul tiles
#   that spill registers made it 120-210, and 419 when one worker had to compile them all. The ptxas
#   that a worker starts takes 62 more for a moment (277 for those).
#   sidecar: RSS 369, USS 225 without workers; with workers most of that is shared with them.
# torch 2.11.0+cu130, triton 3.6.0, H200: worker USS fresh 3-4, after 12 matmul kernels 49, after 48 of
#   them 68; sidecar RSS 635, USS 364 without workers. In a pool there that served
#   torch.compile itself, a worker that had compiled nothing yet had 28.
# So: a worker is 71 + 62, and 25 more with a GPU; a sidecar is its RSS.
CPU_COST = PoolCost(sidecar=370 * _MIB, worker=133 * _MIB)
GPU_COST = PoolCost(sidecar=640 * _MIB, worker=158 * _MIB)


class BadProcesses(ValueError):
    """A number of processes that is not one. The message names the value, its origin and what is allowed."""


class BadStartMethod(ValueError):
    """A start method that this torch does not know. The message names value, origin and what is allowed."""


@dataclass(frozen=True)
class Source:
    """One word about how many processes there should be.

    name: who said it: "policy", a variable, "ini compilepool_processes", "--compilepool-processes",
        "@pytest.mark.compilepool(processes=...)", "xdist", "fixture", "memory" or "safety".
    value: what was said, as it was written; processes: the number that follows from it, or None.
    note: why it counts or does not; used: whether it changed or confirmed the number.
    """

    name: str
    value: str
    processes: int | None
    note: str
    used: bool


@dataclass(frozen=True)
class Decision:
    """How many processes, started how, and why.

    processes: 1 to MAX_PROCESSES; 1 means no pool. start_method: "subprocess", "fork", "spawn".
    reasons: all that was said, in order; the last used one decided.
    safe: False where a pool must not be; unsafe_because: the sentence that says why, else None.
    start_method_from: who chose the start method.
    """

    processes: int
    start_method: str
    reasons: tuple[Source, ...]
    safe: bool
    unsafe_because: str | None
    start_method_from: str = "default"

    @property
    def decided_by(self) -> Source:
        """The last used reason."""
        return next(reason for reason in reversed(self.reasons) if reason.used)

    @property
    def why(self) -> str:
        """One short phrase for a header line, such as "min(8, 16 cpus // 1 gpu - 1)"."""
        reason = self.decided_by
        if reason.name in ("policy", "xdist", "memory", "safety"):
            return reason.value
        if reason.name == FIXTURE:
            return f"{reason.value} for a test that asks for a pool"
        if reason.name == MARKER:
            return MARKER.replace("...", reason.value)
        return f"{reason.name}={reason.value}"

    def explain(self) -> list[str]:
        """The decision as lines for people: what it is, then each reason, the deciding one with an arrow."""
        lines = [
            f"processes: {self.processes} ({'no pool; ' if self.processes == 1 else ''}{self.why})",
            f"start method: {self.start_method} (from {self.start_method_from})",
        ]
        if self.unsafe_because is not None:
            lines.append(f"unsafe: {self.unsafe_because}")
        decided = self.decided_by
        width = max(len(reason.name) for reason in self.reasons)
        for reason in self.reasons:
            mark = "->" if reason is decided else "  "
            number = "" if str(reason.processes) in ("None", reason.value) else f" = {reason.processes}"
            note = f"  [{reason.note}]" if reason.note else ""
            lines.append(f"{mark} {reason.name:{width}}  {reason.value}{number}{note}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """The record, with `why`, as plain values."""
        return {**asdict(self), "reasons": [asdict(reason) for reason in self.reasons], "why": self.why}


def parse_processes(text: str | int, origin: str) -> int:
    """A number of processes from what somebody wrote.

    text: a whole number, or its digits with blanks around; origin: who wrote it, for the message.
    Returns 1 to MAX_PROCESSES. Raises BadProcesses for anything else, True and 2.5 included.
    """
    return _parse(text, origin, f"a whole number from 1 to {MAX_PROCESSES}")


def _parse(text: object, origin: str, allowed: str) -> int:
    # Not int(text): that takes "1_0" and the digits of other scripts. True is written "True".
    try:
        written = str(text) if isinstance(text, (str, int)) else ""
    except Exception:
        written = ""  # Python writes no number of thousands of digits, and a class may write nothing
    match = re.fullmatch(r"\s*\+?0*([1-9][0-9]{0,3})\s*", written)
    if match is None or int(match[1]) > MAX_PROCESSES:
        raise BadProcesses(
            f"{origin}: {show(text)} is not a number of compile processes; allowed is {allowed}"
        )
    return int(match[1])


# Long: each argument is one of the words that are weighed, and is told; what weighs them is below.
def decide(
    *,
    capabilities: Capabilities | None,
    ini: str | int | None = None,
    flag: str | int | None = None,
    marker: int | None = None,
    at_least: int = 1,
    start_method: str | None = None,
    environ: Mapping[str, str] | None = None,
    started_with: Mapping[str, str] | None = None,
    cpus: Cpus | None = None,
    gpus: Gpus | None = None,
    memory: Memory | None = None,
    daemonic: bool | None = None,
    platform: str = sys.platform,
    vllm_imported: bool | None = None,
    sharers: int = 1,
) -> Decision:
    """Decide how many processes a pool gets and how they are started. Imports neither torch nor vLLM.

    capabilities: what this torch can do, None if it was not looked at: then nothing is called unsafe
        for torch's sake, and any start method is taken.
    ini, flag, marker: the number from there, None if there is none; the last of them wins.
    at_least: what a fixture that promises a pool needs (2). It lifts a number that only the formula
        gave, because CPUs are few; it does not overrule a number that somebody chose, memory, or safety.
    start_method: None for TORCHINDUCTOR_WORKER_START, or else "subprocess".
    The rest is measured where it is None: the environment now (`environ`) and at the start of this
    process (`started_with`), `cpus`, `gpus`, `memory`, whether this is a daemonic process of
    multiprocessing (`daemonic`), and whether vLLM is imported (`vllm_imported`).

    sharers: processes like this one that run beside it, xdist's workers, itself among them. CPUs and memory are
        shared with them, and so is a number that was chosen for the whole run; a marker's is for its own test.

    Raises BadProcesses for any bad number, overruled or not, and BadStartMethod.
    """
    environ = os.environ if environ is None else environ
    cpus = usable_cpus() if cpus is None else cpus
    gpus = gpu_count(environ) if gpus is None else gpus
    if vllm_imported is None:
        vllm_imported = "vllm" in sys.modules
    method, method_from = _start_method(start_method, environ, capabilities)

    sharers = max(1, sharers)
    formula = _formula(cpus, gpus, sharers)
    reasons = [formula]
    reasons += _from_inductor(environ, started_with, vllm_imported)
    reasons += _from_vllm(environ, formula)
    for name, value in ((INI, ini), (FLAG, flag)):
        if value is not None:
            reasons.append(_said(name, value))
    reasons += _shared(reasons, sharers)
    if marker is not None:
        reasons.append(_said(MARKER, marker))
    number, by_formula = _last_number(reasons)

    at_least = parse_processes(at_least, FIXTURE)
    if at_least > number:
        lifted = _lift(at_least, number, by_formula, formula)
        reasons.append(lifted)
        number = at_least if lifted.used else number

    budget = memory_budget() if memory is None else memory
    bound = _memory_bound(number, method, budget, GPU_COST if gpus.count else CPU_COST, sharers)
    reasons.append(bound)
    if bound.used and bound.processes is not None:
        number = bound.processes

    unsafe = _unsafe(capabilities, method, daemonic, platform)
    reasons.append(_safety(capabilities, unsafe))
    if unsafe is not None:
        number = 1
    return Decision(number, method, tuple(reasons), unsafe is None, unsafe, method_from)


def _said(name: str, value: str | int) -> Source:
    return Source(name, str(value).strip(), parse_processes(value, name), "", True)


def _shared(reasons: list[Source], sharers: int) -> list[Source]:
    """A number that was chosen for the run, divided among those who run beside each other; at least 2 for each."""
    number, by_formula = _last_number(reasons)
    share = max(min(number, 2), number // sharers)
    if by_formula or share == number:
        return []
    note = "it was chosen for the whole run"
    return [Source("xdist", f"{number} // {sharers} xdist workers", share, note, True)]


def _formula(cpus: Cpus, gpus: Gpus, sharers: int) -> Source:
    # One pool for each GPU is what the formula reckons with; each worker of xdist has one, too.
    divisor = max(1, gpus.count, sharers)
    number = max(1, min(_POLICY_MAX, cpus.count // divisor - 1))
    word = "xdist worker" if sharers > max(1, gpus.count) else "gpu"
    divided = f" // {counted(divisor, word)}" if gpus.count or divisor > 1 else ""
    written = f"min({_POLICY_MAX}, {counted(cpus.count, 'cpu')}{divided} - 1)"
    seen = f"{counted(gpus.count, 'gpu')} ({gpus.source})"
    note = f"{counted(cpus.count, 'cpu')} ({cpus.source}); {seen}"
    return Source("policy", written, number, note, True)


def _from_inductor(
    environ: Mapping[str, str], started_with: Mapping[str, str] | None, vllm_imported: bool
) -> list[Source]:
    text = environ.get(THREADS_VARIABLE)
    if text is None:
        return []
    number = parse_processes(text, THREADS_VARIABLE)
    if number == 1 and vllm_imported:
        # `import vllm` writes "1" there whatever stood there before, so only the environment from
        # before the first import tells what somebody wanted.
        started = start_environment() if started_with is None else started_with
        wanted = started.get(THREADS_VARIABLE)
        before = None if wanted is None else parse_processes(wanted, f"{THREADS_VARIABLE} at process start")
        if before != 1:
            note = "ignored: importing vLLM writes 1 there, and this process was started without that"
            ignored = Source(THREADS_VARIABLE, text.strip(), number, note, False)
            if before is None:
                return [ignored]
            note = "as this process was started, before vLLM was imported"
            return [ignored, Source(THREADS_VARIABLE, str(before), before, note, True)]
    return [Source(THREADS_VARIABLE, text.strip(), number, "", True)]


def _from_vllm(environ: Mapping[str, str], formula: Source) -> list[Source]:
    text = environ.get(VLLM_VARIABLE)
    if text is None or not text.strip():
        return []  # empty is unset, as vLLM's own variables are read
    if text.strip().lower() == "auto":
        note = f"as the policy says: {formula.value}"
        return [Source(VLLM_VARIABLE, "auto", formula.processes, note, True)]
    number = _parse(text, VLLM_VARIABLE, f"a whole number from 1 to {MAX_PROCESSES}, or auto")
    return [Source(VLLM_VARIABLE, text.strip(), number, "", True)]


def _last_number(reasons: list[Source]) -> tuple[int, bool]:
    """The number so far, and whether it is the formula's own."""
    last = next(reason for reason in reversed(reasons) if reason.used)
    assert last.processes is not None
    return last.processes, last.name == "policy" or last.value == "auto"


def _lift(at_least: int, number: int, by_formula: bool, formula: Source) -> Source:
    if by_formula:
        note = f"for a test that asks for a pool, because {formula.value} gives {number}"
        return Source(FIXTURE, str(at_least), at_least, note, True)
    note = f"for a test that asks for a pool; not followed: somebody chose {number}"
    return Source(FIXTURE, str(at_least), at_least, note, False)


def _memory_bound(number: int, method: str, memory: Memory, cost: PoolCost, sharers: int) -> Source:
    # A forked pool has no sidecar; a spawned worker imports all that a sidecar does.
    sidecar = 0 if method == "fork" else cost.sidecar
    worker = cost.worker + cost.sidecar if method == "spawn" else cost.worker
    room = (memory.available // 2 // sharers - sidecar) // worker
    bound = min(MAX_PROCESSES, max(1, room))
    part = "half" if sharers == 1 else f"1/{2 * sharers}"
    value = f"room for {counted(max(0, room), 'worker')} in {part} of {memory.available // _MIB} MiB"
    note = f"{memory.source}; {sidecar // _MIB} MiB for a sidecar, {worker // _MIB} for a worker"
    return Source("memory", value, bound, note, bound < number)


def _unsafe(
    capabilities: Capabilities | None, method: str, daemonic: bool | None, platform: str
) -> str | None:
    if platform == "win32":
        return "Inductor starts no compile pool on Windows"
    if capabilities is not None and not capabilities.quiesce:
        return f"torch {capabilities.torch} cannot quiesce its compile pool"
    if method != "subprocess" and (_is_daemonic() if daemonic is None else daemonic):
        return f"a daemonic process may not start a pool by {method}, only by subprocess"
    return None


def _is_daemonic() -> bool:
    # Only a process that multiprocessing started is, and there this is loaded; importing it costs time.
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(process.current_process().daemon)


def _safety(capabilities: Capabilities | None, unsafe: str | None) -> Source:
    if unsafe is not None:
        return Source("safety", unsafe, 1, "a pool would be unsafe", True)
    if capabilities is None:
        note = "whether its pool is safe is not known yet"
        return Source("safety", "torch was not looked at", None, note, False)
    return Source("safety", f"torch {capabilities.torch} can quiesce", None, "a pool is safe", False)


def _start_method(
    argument: object, environ: Mapping[str, str], capabilities: Capabilities | None
) -> tuple[str, str]:
    method: object = "subprocess"
    origin = "default"
    if argument is not None:
        method, origin = argument, "start_method"
    elif START_VARIABLE in environ:
        method, origin = environ[START_VARIABLE], START_VARIABLE
    known, of_torch = _USUAL_START_METHODS, ""
    if capabilities is not None:
        known, of_torch = capabilities.start_methods, f" of torch {capabilities.torch}"
    # Without a look at torch only nonsense is refused: another torch may know other words.
    if isinstance(method, str) and (method in known or (capabilities is None and method.isidentifier())):
        return method, origin
    raise BadStartMethod(
        f"{origin}: {method!r} is not a start method{of_torch}; allowed is one of {', '.join(known)}"
    )
