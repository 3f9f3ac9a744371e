# SPDX-License-Identifier: Apache-2.0
"""Cold and warm starts of an engine: in one fresh interpreter after the other, over the same caches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_compilepool.fresh import callables
from pytest_compilepool.fresh.callables import BadInput
from pytest_compilepool.vllm.engines import defaults, models
from pytest_compilepool.vllm.engines.order import Order, Run
from pytest_compilepool.vllm.engines.start import run
from pytest_compilepool.vllm.engines.weights import Weights

MODEL = "tiny-opt"
_NAME = "vllm_compile_phases"


@dataclass
class EnginePhases:
    """Starts engines in fresh interpreters over the same caches; see `cold` and `warm`.

    new_folder: gives an empty folder; weights: of the models; modelinfos: see `start.run`; processes: as text, empty
    for none; limit: seconds for each start; environment: variables to set (None: to unset) in the interpreters; check:
    whether a start without an engine raises.
    """

    new_folder: Callable[[], Path]
    weights: Weights
    modelinfos: Path
    processes: str = ""
    limit: float = 300.0
    environment: Mapping[str, str | None] = field(default_factory=dict)
    check: bool = True
    _root: Path | None = None
    _cold: Order | None = None

    def using(
        self,
        *,
        processes: int | str | None = None,
        environment: Mapping[str, str | None] | None = None,
        limit: float | None = None,
        check: bool | None = None,
    ) -> EnginePhases:
        """The same with other settings and caches of its own. limit: seconds; check: whether a start without an engine
        raises, else `Run.error` says why there is none. Raises ValueError with a sentence."""
        origin = f"{_NAME}.using()"
        changed: dict[str, Any] = {}
        if processes is not None:
            changed["processes"] = defaults.processes(processes, f"{origin}: processes")
        if environment is not None:
            changed["environment"] = callables.environment(environment, origin)
        if limit is not None:
            changed["limit"] = callables.seconds(limit, "limit", origin)
        if check is not None:
            changed["check"] = bool(check)
        return replace(self, **changed, _root=None, _cold=None)

    def cold(self, model: str = MODEL, processes: int | str | None = None, **engine: Any) -> Run:
        """Start an engine over new, empty caches, have it generate, and shut it down.

        model: one of this package by its name, or a folder with a `config.json`; it gets weights, the same each time,
        where it has none. processes: 1 or an empty text is no pool. engine: arguments of `vllm.LLM`. Raises ValueError
        with a sentence for what is not allowed, EngineFailed where vLLM starts no engine (but see `using(check=False)`).
        """
        order = self._order(f"{_NAME}.cold()", model, processes, engine)
        self._root, self._cold = self.new_folder(), order
        return self._run(order)

    def warm(self, model: str | None = None, processes: int | str | None = None, **engine: Any) -> Run:
        """Start another one over the caches that the last `cold` filled. What is not given is as it was there."""
        origin = f"{_NAME}.warm()"
        if self._cold is None or self._root is None:
            raise BadInput(f"{origin}: there is nothing to be warm from; call cold() first")
        model = self._cold.model if model is None else model
        processes = self._cold.processes if processes is None else processes
        order = self._order(origin, model, processes, {**self._cold.engine, **engine})
        return self._run(order)

    def _run(self, order: Order) -> Run:
        assert self._root is not None
        found = run(order, self._root, modelinfos=self.modelinfos)
        if self.check:
            found.engine  # noqa: B018 (raises where there is none: a test that asks for nothing more would pass)
        return found

    def _order(self, origin: str, model: str, processes: Any, engine: dict[str, Any]) -> Order:
        folder = models.find(str(model), f"{origin}: model")
        asked = self.processes if processes is None else processes
        number = defaults.processes(asked, f"{origin}: processes")
        try:
            json.dumps(engine)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{origin}: arguments of vllm.LLM: {error}; allowed: what JSON can say") from None
        if engine.get("load_format") != "dummy":
            folder = self.weights.of(folder)
        return Order(str(folder), number, engine, self.environment, limit=self.limit)
