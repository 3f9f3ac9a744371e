# SPDX-License-Identifier: Apache-2.0
"""What torch and vLLM count, as sources. Nothing here imports torch or vLLM: what is not loaded has counted nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import ClassVar

from pytest_compilepool import torch_compat, vllm_compat
from pytest_compilepool.counters.source import CounterSource
from pytest_compilepool.torch_compat import counters, countnames

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


class TorchNames:
    """The names that this torch has, read from its source when somebody asks; one object for a session."""

    @cached_property
    def counters(self) -> countnames.Names:
        """Those of `counters`."""
        return countnames.counter_names(countnames.torch_folder())

    @cached_property
    def metrics(self) -> tuple[set[str], set[str]]:
        """Those of the compilation metrics, and those of Inductor's module `metrics`."""
        return countnames.metric_names(countnames.torch_folder())


class TorchCounters(CounterSource):
    """torch's `counters`: `aot_autograd.autograd_cache_hit`, `inductor.fxgraph_cache_miss`, ..."""

    name: ClassVar[str] = "torch"
    dotted: ClassVar[bool] = True

    def __init__(self, names: TorchNames) -> None:
        self._names = names

    def read(self) -> Mapping[str, int]:
        told: Counter[str] = Counter()
        for name, number in (torch_compat.counters_snapshot() or {}).items():
            # Sentences about graph breaks hold addresses of objects, in every process other ones.
            told[_ADDRESS.sub("0x...", name)] += int(number)
        return told

    def known(self) -> Collection[str]:
        return self._names.counters.literal

    def knows(self, name: str) -> bool:
        return self._names.counters.know(name)

    @property
    def groups(self) -> set[str]:
        """The groups that these counters are in."""
        return self._names.counters.groups

    def stamp(self) -> object:
        return counters.CountersWatch()

    def doubt(self, name: str, since: object) -> str:
        cleared = isinstance(since, counters.CountersWatch) and since.cleared()
        return "cleared meanwhile" if cleared else ""


class MetricsSource(CounterSource):
    """Sums of torch's compilation metrics: `metrics.triton_compile_time_us`, `metrics.compilations`, ..."""

    name: ClassVar[str] = "metrics"

    def __init__(self, names: TorchNames) -> None:
        self._names = names
        self._sums = counters.CompilationMetrics()

    def read(self) -> Mapping[str, int]:
        return self._sums.read()

    def known(self) -> Collection[str]:
        return self._names.metrics[0]

    def stamp(self) -> object:
        return self._sums.losses

    def doubt(self, name: str, since: object) -> str:
        return (
            ""
            if self._sums.losses == since
            else "incomplete: cleared, or more than the 64 compilations that torch keeps"
        )


class InductorMetricsSource(CounterSource):
    """What Inductor's module `metrics` counts: `inductor_metrics.generated_kernel_count`, ..."""

    name: ClassVar[str] = "inductor_metrics"

    def __init__(self, names: TorchNames) -> None:
        self._names = names

    def read(self) -> Mapping[str, int]:
        return counters.inductor_metrics()

    def known(self) -> Collection[str]:
        return self._names.metrics[1]


class VllmSource(CounterSource):
    """vLLM's `compilation_counter`: `vllm.num_compiled_artifacts_saved`, ..."""

    name: ClassVar[str] = "vllm"

    def read(self) -> Mapping[str, int]:
        return vllm_compat.compilation_counter()

    def known(self) -> Collection[str]:
        return vllm_compat.counter_names()

    def explain(self, name: str) -> str:
        return "" if vllm_compat.vllm_installed() else "vLLM is not installed"
