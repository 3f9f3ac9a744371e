# SPDX-License-Identifier: Apache-2.0
"""C++ kernels: compiled by threads of this process, never by the pool; the same texts, whoever compiles them."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_compilepool.parity.findings import Finding, Side
from pytest_compilepool.torch_compat.kernels import Asked


def cpp_kernels(side: Side) -> list[Asked]:
    """The C++ kernels that this side asked for."""
    return [asked for asked in side.answer.asked if asked.kind == "cpp"]


def cpp_path(side: Side) -> str | None:
    """Which way this side's C++ kernels went, in words; None where there were none."""
    asked = cpp_kernels(side)
    if not asked:
        return None
    by_threads = sum(one.route == "threads" for one in asked)
    if by_threads:
        return f"{by_threads} of {len(asked)} C++ kernels by {len(side.answer.cpp_threads)} compile threads"
    return f"{len(asked)} C++ kernels by the calling thread"


def judge_cpp(side: Side, min_parallel: float | None) -> Iterator[Finding]:
    """C++ kernels that took another way than they should. min_parallel: None where all are to take the right one."""
    ways = [asked.route for asked in cpp_kernels(side)]
    if side.parallel:
        wrong = bool(ways) and ("threads" not in ways or (min_parallel is None and "parent" in ways))
        wrong = wrong and min_parallel != 0
    else:
        wrong = "threads" in ways
    if wrong:
        yield Finding("cpp", side.label, f"took another path than it should: {cpp_path(side)}")


def compare_cpp(one: Side, other: Side) -> Iterator[Finding]:
    """C++ kernels that only one side asked for."""
    mine, theirs = ({asked.source for asked in cpp_kernels(side)} for side in (one, other))
    for side, lacking, rest in ((one, other, mine - theirs), (other, one, theirs - mine)):
        for source in sorted(rest):
            told = f"asked for with {side.label} and not with {lacking.label}"
            yield Finding("cpp", f"C++ kernel {source}", told)
