# SPDX-License-Identifier: Apache-2.0
"""`CompileCounters`: what the fixture `compile_counters` hands out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

from pytest_compilepool.counters import conditions
from pytest_compilepool.counters.baseline import Baseline, Books
from pytest_compilepool.counters.counts import Counts
from pytest_compilepool.counters.errors import HIDDEN, BadInput, CountersDiffer
from pytest_compilepool.counters.expectation import Block, Expectation, counts_between
from pytest_compilepool.counters.machine import Machine
from pytest_compilepool.counters.poolsource import PoolSource
from pytest_compilepool.counters.reader import Reader, Reading
from pytest_compilepool.counters.source import CounterSource, checked_sources
from pytest_compilepool.counters.table import moves_text
from pytest_compilepool.counters.torchsources import (
    InductorMetricsSource,
    MetricsSource,
    TorchCounters,
    TorchNames,
    VllmSource,
)
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.records import JobRecord

__tracebackhide__ = HIDDEN

HOOK = "hook pytest_compilepool_counters"


class SessionCounters:
    """What the tests of a session share: names that were looked up, sources of others, the machine.

    offered: calls the hook, and gives what each of its implementations returned.
    """

    def __init__(self, offered: Callable[[], Sequence[object]]) -> None:
        self._offered = offered
        self.names = TorchNames()
        self.machine = Machine()
        self.written: dict[tuple[Path, str], tuple[str, dict[str, int]]] = {}

    @cached_property
    def others(self) -> list[CounterSource]:
        """The sources that the hook offers. Raises BadInput."""
        found: list[CounterSource] = []
        try:
            offers = self._offered()
        except Exception as error:
            raise BadInput(f"{HOOK}: raised {type(error).__name__}: {error}") from error
        for offer in offers:
            taken = {
                *self._ours(),
                *TorchCounters(self.names).groups,
                *(source.name for source in found),
            }
            found += checked_sources(offer, taken, HOOK)
        return found

    def sources(self, pool: PoolSource) -> list[CounterSource]:
        """All sources of one test. pool: its own. Raises BadInput."""
        return [
            TorchCounters(self.names),
            MetricsSource(self.names),
            InductorMetricsSource(self.names),
            pool,
            VllmSource(),
            *self.others,
        ]

    @staticmethod
    def _ours() -> Iterator[str]:
        for source in (TorchCounters, MetricsSource, InductorMetricsSource, PoolSource, VllmSource):
            yield source.name


class CompileCounters:
    """Compile counters of one test: what moves them is expected, compared with a baseline, or just looked at.

    A context manager; the test begins when it is entered. shared: of the session; pools: gives the pools of the
    test, now; file, test, command, write: see `Books`. Raises BadInput for what the hook offers.
    """

    at_least = staticmethod(conditions.at_least)
    at_most = staticmethod(conditions.at_most)
    between = staticmethod(conditions.between)
    unchanged = conditions.unchanged

    def __init__(
        self,
        shared: SessionCounters,
        pools: Callable[[], Iterable[CompilePool]],
        *,
        file: Path,
        test: str,
        command: str,
        write: bool = False,
    ) -> None:
        self._pool = PoolSource(pools)
        self._reader = Reader(shared.sources(self._pool))
        self._books = Books(file, test, command, write, shared.machine, shared.written)
        self._before = Reading()
        self._kept: list[tuple[BaseException, str]] = []
        self._blocks: list[Block] = []

    def expect(self, expected: Mapping[str, object], exact: bool = False) -> Expectation:
        """A block in which these counters move by so much, checked at its end also if it raises.

        expected: dotted name -> whole number, `at_least(n)`, `at_most(n)`, `between(a, b)` or `unchanged`; exact:
        nothing else may move but measurements of time. Raises UnknownCounter and BadInput at once, and
        CountersDiffer at the end, with all mismatches and all that moved.
        """
        block = Expectation(self._reader, self._keep, expected, exact)
        self._blocks.append(block)
        return block

    def baseline(self, name: str) -> Baseline:
        """A block that moves counters as the checked-in file says, for this torch, vLLM and class of device.

        name: of the entry. Skips without an entry; `--compilepool-write-counters` writes it. Raises BadInput,
        BadBaseline where the file cannot be used, and CountersDiffer.
        """
        block = Baseline(self._reader, self._keep, self._books, name)
        self._blocks.append(block)
        return block

    def read(self) -> Counts:
        """Every counter that is not 0, as it is now."""
        reading = self._reader.read()
        return Counts(
            reading.numbers, lambda name: self._reader.check(name, reading, "compile_counters.read()")
        )

    def moved(self) -> Counts:
        """By how much every counter moved since the test was given this object."""
        return counts_between(self._reader, self._before, self._reader.read(), "compile_counters")

    def jobs_by_worker(self) -> dict[int | None, list[JobRecord]]:
        """Every job of the test's pools by the pid of its worker; under None those that nobody took up."""
        return self._pool.by_worker()

    def describe(self) -> str:
        """What moved since the test began and who did which job; and the tables of blocks that raised."""
        moves = self._reader.moves(self._before, self._reader.read())
        text = moves_text(moves, self._pool.by_worker()) or "nothing moved"
        return "\n".join([text, *(table for _, table in self._kept)])

    @property
    def swallowed(self) -> str:
        """What the blocks of a test that passed have told nobody, or an empty text.

        Tables that went along with errors of blocks, which reached nobody then; blocks that nobody judged.
        """
        tables = [table for error, table in self._kept if not isinstance(error, CountersDiffer)]
        return "\n".join([*tables, *(block.unjudged for block in self._blocks if block.unjudged)])

    def __enter__(self) -> CompileCounters:
        self._pool.start()
        self._before = self._reader.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()

    def _keep(self, error: BaseException, table: str) -> None:
        self._kept.append((error, table))
        if hasattr(error, "add_note"):  # Python 3.11; before, the section of the report has to do
            error.add_note(table)
