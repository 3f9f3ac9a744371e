# SPDX-License-Identifier: Apache-2.0
"""The check itself: every mode in its own interpreter over its own empty caches, then compared with the first."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_compilepool.fresh import callables, values
from pytest_compilepool.fresh.order import Order
from pytest_compilepool.fresh.run import OUTPUT, Folders, command_to_repeat, log_tail, run
from pytest_compilepool.parity.artifacts import UnreadableArtifact, read_artifacts
from pytest_compilepool.parity.cpp import cpp_kernels, cpp_path
from pytest_compilepool.parity.findings import Finding, Side
from pytest_compilepool.parity.judge import judge
from pytest_compilepool.parity.kernels import identical_binaries
from pytest_compilepool.parity.parallel import share
from pytest_compilepool.parity.wish import Wish

__tracebackhide__ = callables.hidden


class ParityError(AssertionError):
    """The pool did not make what one thread makes. Its text is the whole report."""

    told_in_full = True


@dataclass
class Report:
    """What came out.

    sides: the modes, the first first; findings: differences (`fails`) and what is worth knowing; identical: by
    label, how many of the binaries that a side has in common with the first are the same to the byte, and of how many.
    """

    name: str
    sides: list[Side] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    identical: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def failures(self) -> list[Finding]:
        """The findings because of which the sides are not the same."""
        return [finding for finding in self.findings if finding.fails]

    @property
    def kernels(self) -> int:
        """How many Triton kernels the first side made."""
        return len(self.sides[0].kernels) if self.sides else 0

    def lines(self) -> list[str]:
        """The report, a line each."""
        shares = [_share_words(side) for side in self.sides if side.parallel]
        verdict = _counted(len(self.failures), "difference") if self.failures else "the same"
        labels = ", ".join(side.label for side in self.sides)
        head = f"parity of {self.name} ({labels}): {verdict}; {'; '.join(shares) or 'no pool'}"
        sides = [f"  {_side_line(side, self.identical.get(side.label))}" for side in self.sides]
        told = [f"  {'DIFFERS' if finding.fails else 'note'}: {finding}" for finding in self.findings]
        return [head, *sides, *told]


def compare(
    wish: Wish,
    function: Any,
    arguments: Any,
    keywords: dict[str, Any],
    name: str,
    folder: Path,
    reports: list[Report],
) -> Report:
    """Run every mode and compare.

    folder: empty, of this check alone; removed again where nothing differs; reports: the report is put there as
    soon as it is made, also where the check then fails. Raises BadInput, FreshFailed, and ParityError with the
    report.
    """
    report = Report(name)
    modes = [(number, method) for method in wish.start_methods for number in wish.processes]
    modes = [
        mode for at, mode in enumerate(modes) if mode[0] > 1 or mode[0] not in [m[0] for m in modes[:at]]
    ]
    work = callables.pack((function, arguments, keywords), f"{name}: the function and its inputs")
    before = None if wish.before is None else callables.pack(wish.before, f"{name}: before")
    for number, method in modes:
        report.sides.append(_side(wish, work, before, number, method, folder))
    try:
        report.findings += judge(wish, report.sides)
        for side in report.sides[1:]:
            report.identical[side.label] = identical_binaries(report.sides[0], side)
    except UnreadableArtifact as error:
        raise ParityError(f"parity of {name}: {error}\n{_kept(report.sides)}") from None
    reports.append(report)
    if report.failures:
        raise ParityError("\n".join([*report.lines(), _kept(report.sides)]))
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _side(
    wish: Wish,
    work: callables.Parcel,
    before: callables.Parcel | None,
    number: int,
    method: str,
    folder: Path,
) -> Side:
    label = f"{number} processes, {method}" if number > 1 else "1 process"
    place = folder / re.sub(r"\W+", "-", label)
    # Every mode compiles into folders of the same names: a kernel may hold the path of its text.
    caches = folder / "caches"
    folders = Folders.below(caches, place / "run")
    order = Order(
        work,
        tuple(sys.path),
        processes=number,
        start_method=method,
        target=wish.target,
        calls=wish.repeat,
        compile=None if wish.compile is None else callables.pack(wish.compile, f"{label}: compile"),
        before=before,
        ready_timeout=wish.ready_timeout,
        shutdown_timeout=wish.shutdown_timeout,
        limit=wish.limit,
    )
    try:
        answer = run(order, folders, wish.environment)
    finally:
        # The function may have removed them; then there is nothing to keep.
        caches.mkdir(exist_ok=True)
        caches.rename(place / "caches")
    moved = (str(caches), str(place / "caches"))
    folders = _where_they_are(Folders.below(place / "caches", place / "run"), answer.caches, moved)
    failure = answer.failure
    if failure is not None and (failure.stage != "call the function" or failure.type == "BadInput"):
        # It says nothing about the two paths.
        raise callables.BadInput(explain_failure(label, failure, folders.run))
    made = {} if failure is not None else values.read(str(folders.run / OUTPUT))
    artifacts = read_artifacts(folders.triton, moved)
    return Side(label, answer, folders, artifacts, made.get("calls"), made.get("state", {}))


def _where_they_are(folders: Folders, told: Mapping[str, str], moved: tuple[str, str]) -> Folders:
    """The caches where the function has put them, if it has put them elsewhere below those that it was given."""
    here = {
        name: Path(folder.replace(*moved)) for name, folder in told.items() if folder.startswith(moved[0])
    }
    return replace(
        folders,
        inductor=here.get("TORCHINDUCTOR_CACHE_DIR", folders.inductor),
        triton=here.get("TRITON_CACHE_DIR", folders.triton),
    )


def explain_failure(label: str, failure: Any, folder: Path) -> str:
    """A failure of a run before or after the function was called, in a sentence where it is a known one."""
    if failure.type in ("BadInput", "OfflineUnsupported"):
        return f"{label}: {failure.text}"
    away = re.search(
        r"not compiled with CUDA|No CUDA GPUs|no NVIDIA driver|not linked with support for cuda", failure.text
    )
    if failure.stage == "make the arguments" and away:
        return (
            f"{label}: the inputs want a device that is not here ({failure.text.splitlines()[0]}); allowed are "
            'devices of this machine, or target="cuda:90" to compile for one that is not'
        )
    return (
        f"{label}: {failure.type} in stage {failure.stage!r}: {failure.text}\n{failure.trace}\n"
        f"the end of its log:\n{log_tail(folder)}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _share_words(side: Side) -> str:
    done, kernels = share(side)
    if kernels or not cpp_kernels(side):
        return f"{done} of {kernels} kernels by workers"
    return f"C++ only: {cpp_path(side)}"


def _side_line(side: Side, identical: tuple[int, int] | None) -> str:
    answer = side.answer
    done, kernels = share(side)
    parts = [f"{kernels} Triton kernels in {len(side.artifacts)} configurations"]
    if side.parallel:
        workers = {job.worker for job in answer.jobs if job.worker is not None}
        parts.append(f"{done} of {kernels} kernels compiled by workers ({len(workers)} pids)")
    path = cpp_path(side)
    if path:
        parts.append(path)
    if identical is not None and identical[1]:
        parts.append(f"{identical[0]} of {identical[1]} binaries identical even in their line information")
    if answer.launches:
        parts.append("nothing launched: outputs have shapes and no data")
    seconds = ", ".join(f"{name} {took:.2f} s" for name, took in answer.seconds.items())
    return f"{side.label} (pid {answer.pid}, {answer.device}): {'; '.join(parts)}; {seconds}"


def _kept(sides: Sequence[Side]) -> str:
    lines = ["kept, with what was compiled:"]
    lines += [f"  {side.label}: {side.place}" for side in sides]
    lines += ["to repeat a run:"] + [f"  {command_to_repeat(side.folders.run)}" for side in sides]
    return "\n".join(lines)
