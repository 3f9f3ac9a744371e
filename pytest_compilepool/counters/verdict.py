# SPDX-License-Identifier: Apache-2.0
"""Whether counters moved as expected: every mismatch, and everything else that moved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_compilepool.counters.conditions import Condition, unchanged
from pytest_compilepool.counters.counts import is_measured
from pytest_compilepool.counters.reader import Move, Reader, Reading

_GOOD = re.compile(r"(^|_)(hits?|loaded)(_|$)")
_BAD = re.compile(
    r"(^|_)(miss|misses|bypass|errors?|exceptions|skips|failed|cancelled|not_ok|graph_breaks)(_|$)"
)
_SAVED = re.compile(r"(^|_)saved(_|$)")
_BAD_GROUPS = ("graph_break", "unimplemented")
# A miss is counted with every call, also with a hit: more or fewer of them are neither good nor bad.
_NEITHER = "inductor.async_compile_cache_"


@dataclass(frozen=True)
class Row:
    """One line of a table. expected: in words, empty for what nobody expected; remark: free text."""

    move: Move
    expected: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Verdict:
    """wrong: what is not as expected, in the order of the expectation; others: all else that moved."""

    wrong: list[Row]
    others: list[Row]


def judge(
    reader: Reader,
    expected: Mapping[str, Condition],
    before: Reading,
    after: Reading,
    *,
    exact: bool,
    passed_over: Callable[[str], bool] = is_measured,
    ended_well: bool = True,
) -> Verdict:
    """Compare what moved between two readings with what was expected.

    exact: nothing else may have moved, nor any source have failed; passed_over: which counters may all the same;
    ended_well: the block did all that it was to do, so that less of what is bad is good.
    """
    moves = {move.name: move for move in reader.moves(before, after)}
    verdict = Verdict([], [])
    for name, condition in expected.items():
        move = moves.pop(name, None) or reader.move(name, before, after)
        side = condition.side(move.by)
        if side or move.doubt:
            plain = direction(move, side, reader, before, after) if ended_well else ""
            remark = move.doubt or plain
            verdict.wrong.append(Row(move, repr(condition), remark))
        elif move.by:
            verdict.others.append(Row(move, repr(condition), "as expected"))
    for name, move in moves.items():
        if exact and not passed_over(name):
            verdict.wrong.append(Row(move, repr(unchanged), move.doubt))
        else:
            verdict.others.append(Row(move, "", move.doubt or ("measured" if is_measured(name) else "")))
    if exact:
        said = {row.remark for row in verdict.wrong}
        for source, sentence in reader.doubts(before, after).items():
            if sentence not in said:
                verdict.wrong.append(Row(Move(f"{source}.*", 0, 0, 0), repr(unchanged), sentence))
    verdict.others.sort(key=lambda row: is_measured(row.move.name))
    return verdict


def direction(move: Move, side: int, reader: Reader, before: Reading, after: Reading) -> str:
    """`better` or `worse` where it is plain from the name which one it is, else an empty text.

    side: 1 where the counter moved by more than expected, -1 where by less.
    """
    group, _, name = move.name.partition(".")
    if move.name.startswith(_NEITHER):
        return ""
    if _GOOD.search(name):
        return "better" if side > 0 else "worse"
    if _BAD.search(name) or group in _BAD_GROUPS:
        return "better" if side < 0 else "worse"
    if _SAVED.search(name) and side < 0:
        # Less was saved and something was found: what needed no saving.
        found = any(
            other.by > 0 and other.name.startswith(f"{group}.") and _GOOD.search(other.name.partition(".")[2])
            for other in reader.moves(before, after)
        )
        return "better" if found else ""
    return ""
