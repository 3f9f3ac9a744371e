# SPDX-License-Identifier: Apache-2.0
"""The verdict on all sides of a check: what makes them differ, and what is worth knowing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pytest_compilepool.parity import outputs
from pytest_compilepool.parity.counts import MAY_DIFFER, compare_counters
from pytest_compilepool.parity.cpp import compare_cpp, judge_cpp
from pytest_compilepool.parity.errors import Cause, cause_of
from pytest_compilepool.parity.findings import Finding, Side
from pytest_compilepool.parity.kernels import compare_kernels
from pytest_compilepool.parity.parallel import judge_failed, judge_found, judge_parallel, judge_single
from pytest_compilepool.parity.wish import Wish

# How a pool ends that was asked to and had the time.
_ENDED_WELL = ("", "asked")


def judge(wish: Wish, sides: Sequence[Side]) -> list[Finding]:
    """All findings. sides: the first is what the others are compared with. Raises UnreadableArtifact."""
    first, *others = sides
    causes = [cause_of(side) for side in sides]
    findings = [finding for side in sides for finding in _judge_run(wish, side)]
    if any(causes) or wish.raises is not None:
        findings += _judge_errors(wish, sides, causes)
        if all(causes):
            for side in others if first.answer.processes == 1 else sides:
                findings += judge_failed(side, wish.min_parallel)
        return findings
    nondeterministic = _determinism(wish, sides)
    findings += nondeterministic
    for side in sides:
        findings += judge_parallel(side, wish.min_parallel) if side.parallel else judge_single(side)
        findings += judge_cpp(side, wish.min_parallel)
    for other in others:
        kernels = compare_kernels(first, other)
        findings += kernels
        findings += compare_cpp(first, other)
        findings += compare_counters(first, other, {**MAY_DIFFER, **wish.may_differ})
        if not nondeterministic:
            excused = any(finding.kind == "config" for finding in kernels)
            findings += _judge_outputs(wish, first, other, excused)
    return findings


def _judge_run(wish: Wish, side: Side) -> Iterator[Finding]:
    """What went wrong besides, or keeps from telling."""
    answer = side.answer
    for fault in answer.faults:
        yield Finding("run", side.label, fault)
    if answer.shutdown not in _ENDED_WELL:
        yield Finding("run", side.label, f"its pool did not end when it was asked to: {answer.shutdown}")
    for source, doubt in answer.doubts.items():
        # Of many compilations torch keeps the last 64: on each side the same ones.
        reason = wish.may_differ.get(source) or ("the same on all sides" if source == "metrics" else "")
        told = f"with {side.label} not all that moved is known: {doubt}" + (f" ({reason})" if reason else "")
        yield Finding("counter", f"{source}.*", told, fails=not reason)
    if answer.deaf:
        yield Finding(
            "run", side.label, "this Triton (before 3.4) does not say what the parent compiled", False
        )
    yield from judge_found(side)


def _judge_errors(wish: Wish, sides: Sequence[Side], causes: Sequence[Cause | None]) -> Iterator[Finding]:
    """What is to be said where a side raised, or should have."""
    first = causes[0]
    if not any(causes):
        yield Finding("error", sides[0].label, f"nothing was raised; wanted: an error like {wish.raises!r}")
        return
    for side, cause in zip(sides, causes, strict=True):
        if (cause is None) != (first is None) or (cause and first and not cause.same_as(first)):
            told = f"{cause or 'nothing was raised'}; with {sides[0].label}: {first or 'nothing was raised'}"
            yield Finding("error", side.label, told + _trace(side))
        elif cause is None:
            continue  # the first, where only others raised: said of them
        elif wish.raises is None or not re.search(wish.raises, str(cause)):
            expected = "none was expected" if wish.raises is None else f"wanted was one like {wish.raises!r}"
            yield Finding("error", side.label, f"{cause} ({expected}){_trace(side)}")
        else:
            yield Finding("error", side.label, str(cause), fails=False)


def _trace(side: Side) -> str:
    failure = side.answer.failure
    return "" if failure is None else "\n" + side.shorten(failure.trace)


def _determinism(wish: Wish, sides: Sequence[Side]) -> list[Finding]:
    """A function that does not give the same twice in one interpreter cannot be compared between two."""
    for side in sides:
        calls = side.outputs or []
        for number, call in enumerate(calls[1:], 2):
            text = _difference(calls[0], call, wish)
            if text:
                return [
                    Finding(
                        "determinism",
                        side.label,
                        f"the function is not deterministic: call 1 and call {number} in the same interpreter, "
                        f"with the same seed and inputs: {text}; outputs cannot be compared between modes",
                    )
                ]
    return []


def _difference(one: dict[str, Any], other: dict[str, Any], wish: Wish) -> str | None:
    """The first difference between two calls: in what came out, then in what became of the arguments."""
    for path, mine, theirs in _pairs(one, other):
        text = outputs.difference(mine, theirs, wish.rtol, wish.atol, path)
        if text:
            return text if path == "output" else f"{text} (as the calls left it)"
    for path in sorted({**one["forms"], **other["forms"]}):
        told = [call["forms"].get(path, "not there") for call in (one, other)]
        if told[0] != told[1]:
            return f"{path} is {told[0]} and {told[1]}"
    return None


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield "output", one["output"], other["output"]
    changed, theirs = one["changed"], other["changed"]
    for path in sorted({**changed, **theirs}):
        yield path, changed.get(path), theirs.get(path)


def _judge_outputs(wish: Wish, first: Side, other: Side, excused: bool) -> Iterator[Finding]:
    mine, theirs = _first_call(first), _first_call(other)
    text = _difference(mine, theirs, wish)
    if text is None:
        return
    close = mine["forms"] == theirs["forms"] and all(
        outputs.within_tolerance(a, b, wish.rtol, wish.atol) for _, a, b in _pairs(mine, theirs)
    )
    fails = not close or (wish.bitwise and not excused)
    told = f"{text} ({first.label}, then {other.label})" + ("; the configurations differ" if excused else "")
    yield Finding("output", "output", told, fails)


def _first_call(side: Side) -> dict[str, Any]:
    """With the state of the module that was called, which the last call has left: no call makes it anew."""
    assert side.outputs is not None
    call = side.outputs[0]
    return {**call, "changed": {**call["changed"], **side.state}}
