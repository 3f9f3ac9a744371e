# SPDX-License-Identifier: Apache-2.0
"""C++ kernels: compiled by threads of this process, never by the pool; the same texts, whoever compiles them."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_compilepool.parity.findings import Finding, Side


def cpp_path(side: Side) -> str | None:
    """Which way this side's C++ kernels went, in words; None where there were none."""
    asked = [one for one in side.answer.asked if one.kind == "cpp"]
    if not asked:
        return None
    by_threads = sum(one.route == "threads" for one in asked)
    if by_threads:
        return f"{by_threads} of {len(asked)} C++ kernels by {len(side.answer.cpp_threads)} compile threads"
    return f"{len(asked)} C++ kernels by the calling thread"


def compare_cpp(one: Side, other: Side) -> Iterator[Finding]:
    """C++ kernels that only one side asked for."""
    mine, theirs = _sources(one), _sources(other)
    for side, lacking, rest in ((one, other, mine - theirs), (other, one, theirs - mine)):
        for source in sorted(rest):
            yield Finding(
                "cpp", f"C++ kernel {source}", f"asked for with {side.label} and not with {lacking.label}"
            )
    for side in (one, other):
        went = {asked.route for asked in side.answer.asked if asked.kind == "cpp"}
        if went and (("threads" in went) != side.parallel):
            yield Finding("cpp", side.label, f"took another path than it should: {cpp_path(side)}")


def _sources(side: Side) -> set[str]:
    return {asked.source for asked in side.answer.asked if asked.kind == "cpp"}
