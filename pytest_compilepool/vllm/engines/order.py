# SPDX-License-Identifier: Apache-2.0
"""What an interpreter is to do with vLLM, and what it has seen, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ORDER, ANSWER, LOG, STACKS, EVENTS = "order.json", "answer.json", "log.txt", "stacks.txt", "events.jsonl"

GATE_SECONDS = 3600.0
"""Seconds that an interpreter waits for its turn."""

SHUTDOWN_SECONDS = 30.0
"""Seconds in which an engine's processes may end by themselves when it is shut down, before vLLM kills them."""

PROMPTS = ((5, 6, 7, 8), (9, 10, 11, 12, 13, 14), (40, 3, 77))
"""Tokens of prompts that every model of this package knows."""


@dataclass(frozen=True)
class Order:
    """One interpreter that starts one engine, or several one after the other.

    model: folder with a `config.json`; processes: VLLM_COMPILE_PROCESSES, an empty text to leave it unset; engine:
    arguments of `vllm.LLM` beyond the defaults; environment: variables to set, or with None to unset; prepare:
    functions, `module:function`, called with the child before the first engine is made; engines: how many; tokens:
    how many are generated for each prompt; logprobs: whether each is told with its own; watch: seconds for which the
    engine generates while the CPU time of the pool's processes is measured; plugin: whether vLLM is to load this
    package's; gate: a file, or an empty text: once it has imported vLLM it makes `gate.ready` and waits for that file;
    limit: seconds for all of it, from the gate on where there is one.
    """

    model: str
    processes: str = ""
    engine: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str | None] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    engines: int = 1
    tokens: int = 8
    logprobs: bool = False
    watch: float = 0.0
    plugin: bool = True
    gate: str = ""
    limit: float = 300.0


@dataclass
class Engine:
    """One engine.

    seconds: init (of `LLM(...)`), generate, shutdown; logged: what vLLM's own log says, in seconds: dynamo, graph_compile,
    torch_compile, init_engine; counters: that moved, by dotted name (`vllm.`, `aot_autograd.`, `inductor.`), empty where
    the engine is in another process; blocks: of the KV cache, None where it is not known; tokens, logprobs: one list a
    prompt; pool: processes of the pool when the engine had generated, `sidecars` and `workers`, as pids; cpu: seconds of
    CPU that each of them took while the engine was watched; captures: of CUDA graphs, how many, and how many with a
    pool that was not quiesced; clock: seconds in torch's compile, see `CompileClock`; phases: torch's own account of it;
    left: processes of the pool after the shutdown; kernels: of the worker, by where they were compiled, until the engine
    served; late: those that came with its requests.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    logged: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    blocks: int | None = None
    tokens: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)
    pool: dict[str, list[int]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    watched: float = 0.0
    captures: dict[str, int] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)


@dataclass
class Run:
    """One interpreter. versions: of vllm, torch, triton, and the device; engines: those that were started; error: why
    the last one was not, `Type: text`; events: of the lifecycle (`VllmEvent` as dicts), all processes; census: what
    of vLLM's and torch's is not as it is without this package; status: exit status, None where it had to be ended;
    survivors: command lines of what was still there when the interpreter had ended; shared: names of segments of shared
    memory that its processes left, and that were removed; log: the end of what it said."""

    versions: dict[str, str] = field(default_factory=dict)
    engines: list[Engine] = field(default_factory=list)
    error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    census: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    status: int | None = None
    survivors: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def engine(self) -> Engine:
        """The first one. Raises EngineFailed where there is none."""
        if not self.engines:
            raise EngineFailed(self.error or f"no engine was started; the end of the log:\n{self.log}")
        return self.engines[0]

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Run:
        """The reverse of `dataclasses.asdict`; unknown keys are ignored."""
        known = {key: value for key, value in told.items() if key in cls.__dataclass_fields__}
        engines = [
            Engine(**{key: value for key, value in one.items() if key in Engine.__dataclass_fields__})
            for one in known.pop("engines", [])
        ]
        return cls(**known, engines=engines)


class EngineFailed(RuntimeError):
    """An engine that was to start did not. Its text says what vLLM said."""

    told_in_full = True
