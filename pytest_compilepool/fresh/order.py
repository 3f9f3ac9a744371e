# SPDX-License-Identifier: Apache-2.0
"""What a fresh interpreter is told to do, and what it answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from pytest_compilepool.fresh.callables import Parcel
from pytest_compilepool.records import JobRecord
from pytest_compilepool.torch_compat.compiles import TritonCompile
from pytest_compilepool.torch_compat.kernels import Asked


@dataclass(frozen=True)
class Order:
    """One run of a function.

    work: a parcel with (function, positional arguments or a function that makes them, keyword arguments).
    processes: 1 means no pool; start_method: of the pool; target: name of a GPU that is not there, or None;
    calls: how often the function is called with the same arguments; compile: a parcel with arguments for `torch.compile`, or
    None where the function compiles by itself; seed: set before each call, or None; before: a parcel with a
    function that is called before anything is compiled, or None; prime: the target for which the pool is primed, an
    empty text for none. ready_timeout, shutdown_timeout, limit: seconds.
    """

    work: Parcel
    path: tuple[str, ...]
    processes: int = 1
    start_method: str = "subprocess"
    target: str | None = None
    calls: int = 1
    compile: Parcel | None = None
    seed: int | None = 0
    before: Parcel | None = None
    prime: str = ""
    ready_timeout: float = 60.0
    shutdown_timeout: float = 10.0
    limit: float = 300.0


@dataclass(frozen=True)
class Failure:
    """What was raised. stage: where the run had got to; type, text: of the error; trace: the whole traceback."""

    stage: str
    type: str
    text: str
    trace: str


@dataclass
class Answer:
    """What happened. Everything in it is plain, so that it can be written as JSON.

    pid: of the interpreter; stage: where it had got to; device: what it compiled for. seconds: import_torch, warm,
    ready, primed, call (the first), shutdown, by name; later_calls: seconds of the others. moved: counters that moved;
    doubts: why that is not all, by source. jobs: of the pool; sidecar, workers: its pids when it was ready;
    compiles: of Triton in the interpreter itself; asked: kernels that Inductor asked for; parallel: torch's own
    witness, once a compile; cpp_threads: names of threads that compiled C++; launches: kernels that a GPU that is
    not there would have been given; caches: the cache folders
    in effect after the calls; versions: of torch, triton, Python; shutdown: how the pool ended; faults: what went
    wrong besides, a phrase each; deaf: this Triton (before 3.4) tells nobody what it compiles, so `compiles` is empty.
    """

    failure: Failure | None = None
    pid: int = 0
    stage: str = ""
    processes: int = 1
    start_method: str = "subprocess"
    target: str | None = None
    device: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    later_calls: list[float] = field(default_factory=list)
    moved: dict[str, int] = field(default_factory=dict)
    jobs: list[JobRecord] = field(default_factory=list)
    sidecar: int | None = None
    workers: list[int] = field(default_factory=list)
    compiles: list[TritonCompile] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    parallel: list[bool] = field(default_factory=list)
    cpp_threads: list[str] = field(default_factory=list)
    launches: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    caches: dict[str, str] = field(default_factory=dict)
    shutdown: str = ""
    faults: list[str] = field(default_factory=list)
    deaf: bool = False

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Answer:
        """The reverse. Unknown keys are ignored."""
        known = {key: value for key, value in told.items() if key in cls.__dataclass_fields__}
        if known.get("failure") is not None:
            known["failure"] = Failure(**known["failure"])
        for key, kind in (("jobs", JobRecord), ("compiles", TritonCompile), ("asked", Asked)):
            known[key] = [kind(**item) for item in known.get(key, ())]
        return cls(**known)
