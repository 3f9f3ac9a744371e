# SPDX-License-Identifier: Apache-2.0
"""Counters in words: the table of a verdict, what moved, and who did which job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytest_compilepool.counters.counts import is_measured
from pytest_compilepool.counters.reader import Move
from pytest_compilepool.counters.verdict import Row, Verdict
from pytest_compilepool.records import JobRecord

_HEAD = ("counter", "expected", "before", "after", "difference", "")
_NAME = 80  # characters of a name: why a graph broke may be many lines


def verdict_text(verdict: Verdict, title: str) -> str:
    """A title, every mismatch, and below it everything else that moved."""
    rows = [_HEAD, *map(_cells, verdict.wrong)]
    others = [_cells(row) for row in verdict.others]
    lines = _aligned([*rows, *others])
    told = [title, *lines[: len(rows)]]
    if others:
        told += ["also moved:", *lines[len(rows) :]]
    return "\n".join(told)


def moves_text(moves: Iterable[Move], jobs: Mapping[int | None, Sequence[JobRecord]]) -> str:
    """What moved, and every job under the worker that did it. An empty text where there is neither."""
    rows = [_cells(Row(move, "", _remark(move))) for move in moves]
    lines = [] if not rows else _aligned([_HEAD, *rows])
    for worker, records in jobs.items():
        lines.append(f"worker pid {worker}:" if worker is not None else "taken up by nobody:")
        lines += [f"  {_job(record)}" for record in records]
    return "\n".join(lines)


def _remark(move: Move) -> str:
    return move.doubt or ("measured" if is_measured(move.name) else "")


def _cells(row: Row) -> tuple[str, ...]:
    move = row.move
    name = " ".join(move.name.split())
    name = name if len(name) <= _NAME else f"{name[: _NAME - 4]} ..."
    return (
        name,
        row.expected,
        str(move.before),
        str(move.after),
        f"{move.by:+}" if move.by else "0",
        row.remark,
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines: two columns of words, three of numbers, and remarks."""
    wide = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    # Where nobody expected anything there is no such column.
    words = (0, 1) if any(row[1] for row in rows if row is not _HEAD) else (0,)
    for row in rows:
        cells = [row[column].ljust(wide[column]) for column in words]
        cells += [row[column].rjust(wide[column]) for column in (2, 3, 4)]
        lines.append(("  " + "  ".join([*cells, row[5]])).rstrip())
    return lines


def _job(job: JobRecord) -> str:
    took = "" if job.began is None or job.ended is None else f" {job.ended - job.began:.3f} s"
    what = f"{job.function} {job.kernel}".rstrip()
    return (
        f"{job.number}. {what}: {job.outcome}{took}{f' ({job.error.splitlines()[0]})' if job.error else ''}"
    )
