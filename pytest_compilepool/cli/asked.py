# SPDX-License-Identifier: Apache-2.0
"""What `compilepool run` was asked for, checked before anything is started: each worker of xdist would say it anew."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool.cli.refusal import Refused, words
from pytest_compilepool.conformance import shards
from pytest_compilepool.conformance.definition import (
    Definition,
    check_groups,
    check_versions,
    read_definition,
)
from pytest_compilepool.conformance.forks import Address, Origin
from pytest_compilepool.conformance.manifest import MODES, Feature, needs_of
from pytest_compilepool.conformance.required import check_required
from pytest_compilepool.conformance.subjects import DEFAULT, BadRequirements, Subject, ask
from pytest_compilepool.conformance.tomlfile import BadFile
from pytest_compilepool.matrix.writing import remove_earlier
from pytest_compilepool.options import ATTEMPTS, INTERPRETERS
from pytest_compilepool.report.cellfile import unwritable
from pytest_compilepool.suite import bundled
from pytest_compilepool.torch_compat.installed import POOL_MODULES
from pytest_compilepool.words import show


@dataclass(frozen=True)
class Asked:
    """definition: of the bundled suite; mode, groups: which features; at_once: how many at the same time; subject: the
    pool, None where there is none to list promises of; why: then, why; forks: where interpreters can be forked, or None
    where each process of the run finds that for itself."""

    definition: Definition
    mode: str
    groups: tuple[str, ...]
    at_once: int | str
    subject: Subject | None
    why: str
    forks: Address | None = None

    @property
    def features(self) -> list[Feature]:
        """Those of the mode and the groups."""
        within = MODES[: MODES.index(self.mode) + 1]
        every = self.definition.features.values()
        return [one for one in every if one.mode in within and one.group in self.groups]


def read(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Asked:
    """Check all of it, and ask the pool. stack: ends what is started here for the run. Raises Refused."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise Refused("the working directory does not exist any more") from None
    mode = "standard" if arguments.mode is None else arguments.mode
    _check_words(arguments, mode)
    at_once = _at_once(arguments.n, mode)
    # pytest would say it as well, after torch has been imported to ask the pool.
    why_not = "" if arguments.cell is None else unwritable(Path(arguments.cell))
    if why_not:
        raise Refused(
            f"--cell: {show(arguments.cell)} cannot be written: {why_not}; allowed: a file in a folder that is there"
        )
    try:
        definition = read_definition(
            bundled(),
            DEFAULT if arguments.requirements is None else arguments.requirements,
            arguments.expectations,
        )
        every = {one.group for one in definition.features.values()}
        groups = tuple(sorted(every)) if arguments.group is None else words(arguments.group, "--group")
        check_groups(groups, every, "--group")
    except ValueError as error:
        raise Refused(str(error)) from None
    forks = None
    if arguments.requirements is None and at_once and not arguments.list and arguments.interpreter != "new":
        # It imports torch while the pool is asked, which takes as long.
        forks = _origin(stack)
    subject, why = None, ""
    try:
        subject = _subject(arguments.requirements, definition, folder)
    except BadRequirements as error:
        # The promises are the same where there is no torch.
        if arguments.requirements is not None or not arguments.list:
            origin = "" if arguments.requirements is None else "--requirements: "
            raise Refused(f"{origin}{error}") from None
        why = str(error)
    except BadFile as error:
        raise Refused(str(error)) from None
    if arguments.require is not None and subject is not None:
        try:
            check_required(words(arguments.require, "--require"), subject, "--require")
        except ValueError as error:
            if arguments.cell is not None:
                remove_earlier(Path(arguments.cell))
            raise Refused(str(error)) from None
    return Asked(definition, mode, groups, at_once, subject, why, forks)


def _check_words(arguments: argparse.Namespace, mode: str) -> None:
    """What needs no file and no torch to be refused. Raises Refused."""
    if mode not in MODES:
        raise Refused(f"--mode: {mode!r} is not allowed; allowed: {', '.join(MODES)}")
    if arguments.interpreter is not None and arguments.interpreter not in INTERPRETERS:
        allowed = ", ".join(INTERPRETERS)
        raise Refused(f"--interpreter: {arguments.interpreter!r} is not allowed; allowed: {allowed}")
    if arguments.attempts is not None and arguments.attempts not in ATTEMPTS:
        raise Refused(
            f"--attempts: {show(arguments.attempts)} is not allowed; allowed: a whole number from 1 to 9"
        )
    try:
        # Not `or`: a variable of a CI that is not set would be the whole suite.
        shards.parse_shard("1/1" if arguments.shard is None else arguments.shard)
    except ValueError:
        raise Refused(f"--shard: {arguments.shard!r} is not allowed; allowed: {shards.ALLOWED}") from None


def _origin(stack: contextlib.ExitStack) -> Address | None:
    """Of torch's pool. Where it cannot be had, each process of the run says why."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        origin = Origin(POOL_MODULES)
    except OSError:
        return None
    stack.callback(origin.close)
    return origin.address


def _subject(spec: str | None, definition: Definition, folder: str) -> Subject:
    """The pool that is tried. Raises BadRequirements and BadFile."""
    if spec is not None:
        # As `python -m` does it: who names a class of a file that lies here means that file.
        sys.path.append(folder)
    subject = ask(DEFAULT if spec is None else spec, needs_of(definition.features.values()))
    check_versions(definition.expectations, subject)
    return subject


def _at_once(asked: str | None, mode: str) -> int | str:
    """How many features at the same time. Raises Refused where that cannot be had."""
    has_xdist = importlib.util.find_spec("xdist") is not None
    if asked is None:
        cpus = os.cpu_count() or 1
        # What hangs waits for its bound meanwhile. Of the first 30 seconds nothing is known to hang.
        return min(8, cpus + 1 if mode == "smoke" else 3 * cpus) if has_xdist else 0
    if asked != "auto" and not (asked.isascii() and asked.isdecimal() and len(asked) < 5):
        raise Refused(f"-n: {show(asked)} is not allowed; allowed: a whole number from 0 to 9999, or auto")
    at_once = asked if asked == "auto" else int(asked)
    if at_once and not has_xdist:
        raise Refused(f"-n {asked} needs pytest-xdist, which is not installed")
    return at_once
