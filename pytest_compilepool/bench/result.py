# SPDX-License-Identifier: Apache-2.0
"""What a bench has measured: as it is kept in a file, and as tables and plots read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_compilepool.bench import rounds
from pytest_compilepool.words import counted


class BadResult(ValueError):
    """A file that holds no result of this bench. Its text is a phrase that says why."""


SCHEMA = 1
"""Of the files that `--json` writes: one more with each change that makes `--from` of an earlier version wrong."""

_NEEDED = {"compile": ("total", "part", "kernels", "through", "workers")}
"""Figures that every sample of a bench has."""


@dataclass(frozen=True)
class Side:
    """What is compared. processes: of the pool, 1 for none; primed: whether the first Triton compile was over before the
    clock started; workload: what was compiled, an empty text where nothing was."""

    processes: int
    primed: bool = False
    workload: str = ""

    def __str__(self) -> str:
        return counted(self.processes, "process", "processes") + (", primed" if self.primed else "")


@dataclass(frozen=True)
class Sample:
    """One measurement. round: its number, from 0; figures: by name, in seconds where the name does not say otherwise;
    detail: what else is kept of it, plain values."""

    round: int
    side: Side
    figures: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """All of one bench. bench: `pool` or `compile`; about: where and how it was measured; faults: a sentence for each
    run that failed; those are in no figure."""

    bench: str
    about: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def workloads(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(one.side.workload for one in self.samples))

    def sides(self, workload: str = "") -> list[Side]:
        """Those that were measured, by number of processes."""
        found = {one.side for one in self.samples if one.side.workload == workload}
        return sorted(found, key=lambda side: (side.processes, side.primed))

    def rows(self, side: Side) -> dict[int, dict[str, float]]:
        """Figures by round."""
        return {one.round: one.figures for one in self.samples if one.side == side}

    def medians(self, side: Side) -> dict[str, float]:
        """By name; empty where nothing was measured."""
        return rounds.medians(self.rows(side).values())

    def first(self, side: Side) -> Side:
        """What a side is compared with: of its kind the one with the fewest processes."""
        return next(one for one in self.sides(side.workload) if one.primed == side.primed)

    def ratio(self, name: str, side: Side, against: Side | None = None) -> float | None:
        """How many times as long the other took, median over the rounds; None without a round that both have."""
        other = self.first(side) if against is None else against
        return rounds.ratio(name, self.rows(side), self.rows(other))

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "schema": SCHEMA,
            "bench": self.bench,
            "about": self.about,
            "faults": self.faults,
            "samples": [
                {"round": one.round, **vars(one.side), "figures": one.figures, "detail": one.detail}
                for one in self.samples
            ],
            "medians": [
                {**vars(side), "figures": self.medians(side)}
                for workload in self.workloads
                for side in self.sides(workload)
            ],
        }

    @classmethod
    def from_json(cls, told: Any, bench: str) -> Result:
        """The reverse; keys that are not known are passed over. Raises BadResult."""
        check_schema(told)
        if not isinstance(told, Mapping) or not isinstance(told.get("bench"), str):
            raise BadResult("it is no result of a bench")
        if told["bench"] != bench:
            raise BadResult(f"it is a result of `compilepool bench {told['bench'][:40]}`")
        about, faults, samples = told.get("about"), told.get("faults", []), told.get("samples")
        if not isinstance(about, Mapping) or not isinstance(faults, list) or not isinstance(samples, list):
            raise BadResult("`about`, `faults` or `samples` is missing, or is of another kind")
        _check_about(about)
        found = [_sample(one) for one in samples]
        for sample in found:
            missing = [name for name in _NEEDED.get(bench, ()) if name not in sample.figures]
            if missing:
                raise BadResult(f"a sample of it has no figure `{missing[0]}`")
        return cls(bench, dict(about), found, [str(one) for one in faults])


def check_schema(told: Any) -> None:
    """Whether a saved result is of a schema that is known here; one without a number is of the first. Raises BadResult."""
    schema = told.get("schema", 1) if isinstance(told, Mapping) else 1
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BadResult(f"its schema, {repr(schema)[:40]}, is no whole number from 1")
    if schema > SCHEMA:
        raise BadResult(
            f"its schema is {str(schema)[:40]}, and the last one that is known here is {SCHEMA}: a newer pytest-compilepool "
            "has written it"
        )


_HUGE = 1e15  # no figure of a bench is as large


def _check_about(about: Mapping[str, Any]) -> None:
    try:
        for name in ("cpus", "load", "idle_s", "kernels"):
            number(about.get(name, 1))
    except ValueError as error:
        raise BadResult(f"`about.{name}`: {error}") from None
    if not isinstance(about.get("versions", {}), Mapping):
        raise BadResult("`about.versions` is no object")


def _sample(told: Any) -> Sample:
    try:
        primed = told.get("primed", False)
        if not isinstance(primed, bool):
            raise ValueError(f"primed {str(primed)[:40]!r}")
        side = Side(_whole(told["processes"]), primed, str(told.get("workload", "")))
        figures = {str(name): number(value) for name, value in told["figures"].items()}
        return Sample(_whole(told["round"]), side, figures, dict(told.get("detail", {})))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadResult(f"a sample of it cannot be read: {type(error).__name__}: {error}") from None


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no whole number")
    return value


def number(value: Any) -> float:
    """A figure as JSON has it. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _HUGE:
        raise ValueError(f"{repr(value)[:40]} is no number")
    return value
