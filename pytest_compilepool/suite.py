# SPDX-License-Identifier: Apache-2.0
"""A conformance suite as tests of pytest: which are selected, which pool they try, what their verdicts mean."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_compilepool import sessionrecord
from pytest_compilepool.conformance import subjects
from pytest_compilepool.conformance.definition import (
    MANIFEST,
    Definition,
    check_groups,
    check_versions,
    read_definition,
)
from pytest_compilepool.conformance.expectations import Expectation, match, stale_entries
from pytest_compilepool.conformance.feature import ATTRIBUTE
from pytest_compilepool.conformance.forks import Address, ForkServer, ForkServers
from pytest_compilepool.conformance.joint import Joint
from pytest_compilepool.conformance.judging import judge, tried
from pytest_compilepool.conformance.manifest import MODES, SHARING, Feature, needs_of
from pytest_compilepool.conformance.required import check_required
from pytest_compilepool.conformance.runner import run_feature
from pytest_compilepool.conformance.sequence import in_sequence
from pytest_compilepool.conformance.shards import in_shard
from pytest_compilepool.conformance.tomlfile import BadFile
from pytest_compilepool.conformance.verdict import PROPERTY, RUN, STALE, SUITE, Verdict
from pytest_compilepool.fresh.interrupt import as_by_ctrl_c
from pytest_compilepool.keys import REFUSED
from pytest_compilepool.options import Settings

PACKAGE = "pytest_compilepool.suites"

SUBJECT, FORKS, SHARED = "compilepool_subject", "compilepool_forks", "compilepool_shared"
"""Under which keys of `workerinput` an xdist worker finds what its controller knows already: the pool that is tried, where
interpreters can be forked, and a folder for what the features of one run share."""


def told_to_workers(
    subject: subjects.Subject | None, forks: Address | None, shared: str = ""
) -> dict[str, str]:
    """For `workerinput`."""
    known = {SUBJECT: subject, FORKS: forks}
    told = {key: json.dumps(dataclasses.asdict(value)) for key, value in known.items() if value is not None}
    return {**told, SHARED: shared}


def told_by_controller(config: pytest.Config) -> tuple[subjects.Subject | None, Address | None, str]:
    """What the controller has told this worker."""
    told = getattr(config, "workerinput", {})
    subject, forks = (json.loads(told.get(key, "null")) for key in (SUBJECT, FORKS))
    return (
        None if subject is None else subjects.Subject(**subject),
        None if forks is None else Address(tuple(forks["preload"]), forks["name"]),
        str(told.get(SHARED, "")),
    )


def feature_of(item: pytest.Item) -> str | None:
    """The id of the feature that an item is the test of, or None for any other test."""
    found: str | None = getattr(getattr(item, "function", None), ATTRIBUTE, None)
    return found


class Suite:
    """The conformance suites of one session. Raises pytest.UsageError for what is wrong in their files or options."""

    def __init__(
        self,
        settings: Settings,
        subject: subjects.Subject | None = None,
        forks: Address | None = None,
        shared: str = "",
    ) -> None:
        """subject: the pool that is tried, where somebody has asked it already; forks: where there is a process to fork
        interpreters from, or None; shared: a folder of the whole run, made here where it is an empty text."""
        self._settings = settings
        self._spec = settings.requirements or subjects.DEFAULT
        self._definitions: dict[Path, Definition] = {}
        # Another option may have named another pool since.
        self._subject = subject if subject is not None and subject.spec == self._spec else None
        self._versions_fit = False
        self.forks = ForkServers(forks)
        self._joints: dict[tuple[str, ...], Joint] = {}
        self._shared = shared
        self._stack = contextlib.ExitStack()

    def arrange(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out of the items of a session the features that are not to be tried, and order the others."""
        features = [item for item in items if feature_of(item) is not None]
        try:
            dropped = self.select(features)
            ordered = self.order([item for item in features if item not in dropped])
        except pytest.UsageError as error:
            # A worker of xdist has nobody to tell this before the tests run: its tests say it.
            if not hasattr(config, "workerinput"):
                raise
            for item in features:
                item.stash[REFUSED] = str(error)
            return
        place = iter(ordered)
        items[:] = [next(place) if item in ordered else item for item in items if item not in dropped]
        if dropped:
            config.hook.pytest_deselected(items=dropped)

    def select(self, items: Iterable[pytest.Item]) -> list[pytest.Item]:
        """Validate the features among these items; returns those that are not to be tried in this mode and group."""
        chosen = [(item, self.feature(item)) for item in items]
        first: dict[str, pytest.Item] = {}
        for item, feature in chosen:
            other = first.setdefault(feature.id, item)
            if getattr(other, "function", None) is not getattr(item, "function", None):
                raise pytest.UsageError(f"{feature.id} has two tests: {other.nodeid} and {item.nodeid}")
        groups = {feature.group for _, feature in chosen}
        try:
            check_groups(self._settings.group or (), groups, "--compilepool-group")
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        self._check_required()
        wanted = in_shard(
            [feature.id for _, feature in chosen if self._wanted(feature)], self._settings.shard
        )
        return [item for item, feature in chosen if feature.id not in wanted]

    def _check_required(self) -> None:
        """Raises UsageError where something lacks that must be there."""
        if self._settings.require:
            try:
                check_required(self._settings.require, self.subject(), "--compilepool-require")
            except ValueError as error:
                raise pytest.UsageError(str(error)) from None

    def _wanted(self, feature: Feature) -> bool:
        modes = MODES[: MODES.index(self._settings.mode) + 1]
        return feature.mode in modes and feature.group in (self._settings.group or (feature.group,))

    def feature(self, item: pytest.Item) -> Feature:
        """The one that an item is the test of."""
        identifier = feature_of(item)
        features = self.definition(item.path.parent).features
        if identifier not in features:
            manifest = item.path.parent / MANIFEST
            raise pytest.UsageError(f"{item.nodeid}: the feature {identifier!r} is not in {manifest}")
        return features[identifier]

    def definition(self, folder: Path) -> Definition:
        """Of the suite in that folder."""
        if folder not in self._definitions:
            try:
                self._definitions[folder] = read_definition(folder, self._spec, self._settings.expectations)
            except BadFile as error:
                raise pytest.UsageError(str(error)) from None
        return self._definitions[folder]

    def subject(self) -> subjects.Subject:
        """The pool that is tried. It is asked once, in an interpreter of its own."""
        if self._subject is None:
            needs = needs_of(one for found in self._definitions.values() for one in found.features.values())
            try:
                self._subject = subjects.ask(self._spec, needs)
            except subjects.BadRequirements as error:
                origin = "--compilepool-requirements: " if self._settings.requirements else ""
                raise pytest.UsageError(f"{origin}{error}") from None
        if not self._versions_fit:
            try:
                for found in self._definitions.values():
                    check_versions(found.expectations, self._subject)
            except BadFile as error:
                raise pytest.UsageError(str(error)) from None
            self._versions_fit = True
        return self._subject

    def order(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """The same items, as `in_sequence` has them."""
        return in_sequence(items, self._hangs, self._shares, lambda item: self.feature(item).limit)

    def _expected(self, item: pytest.Item) -> Expectation | None:
        expectations = self.definition(item.path.parent).expectations
        return match(expectations, self.feature(item).id, self.subject().versions.get("torch"))

    def _hangs(self, item: pytest.Item) -> bool:
        expected = self._expected(item)
        return expected is not None and "TIMEOUT" in expected.status

    def _shares(self, item: pytest.Item) -> bool:
        """Whether it may be tried beside others. What is known to fail would end them, and be tried again."""
        able = self._settings.interpreter == "fork" and self.subject().holds.get(SHARING, False)
        return able and self.feature(item).share and self._expected(item) is None

    def _forks_for(self, preload: list[str]) -> ForkServer | None:
        return self.forks.having(preload) if preload and self._settings.interpreter == "fork" else None

    def _joint_for(self, item: pytest.Item, preload: list[str]) -> Joint | None:
        """The interpreter that it shares with others, if it may."""
        if not self._shares(item) or self._forks_for(preload) is None:
            return None
        if tuple(preload) not in self._joints:
            self._joints[tuple(preload)] = Joint(self.forks, preload, self._spec)
        return self._joints[tuple(preload)]

    def close(self) -> None:
        """End what was started for it, and remove what its features have shared."""
        for joint in self._joints.values():
            joint.close()
        self.forks.close()
        self._stack.close()

    def _shared_folder(self) -> str:
        if not self._shared:
            # By its name a guard finds it.
            made = tempfile.TemporaryDirectory(
                prefix=sessionrecord.folder_prefix("shared"), ignore_cleanup_errors=True
            )
            self._shared = self._stack.enter_context(made)
        return self._shared

    def stale(self) -> list[str]:
        """A line for each expectation that no supported torch can meet."""
        return [line for found in self._definitions.values() for line in stale_entries(found.expectations)]

    def try_it(self, item: pytest.Item) -> Verdict:
        """Try the feature of an item and judge what came of it; the verdict goes into the item's properties."""
        feature = self.feature(item)
        subject = self.subject()
        expected = self._expected(item)
        preload = subject.preload_for(feature.needs)
        forks = self._forks_for(preload)
        lacking, of_the_pool = subject.lacking(feature.needs)
        if lacking:
            status = "UNSUPPORTED" if of_the_pool else "SKIP"
            verdict = Verdict(feature.id, status, subject.lacks(feature.needs), requirement=lacking)
            judge(verdict, expected)
        else:
            joint = self._joint_for(item, preload)
            verdict = self._attempts(item, feature, expected, forks, joint)
        run = {"pool": subject.name, **subject.versions}
        if forks is not None and forks.refusal:
            run["interpreters not forked:"] = forks.refusal
        item.user_properties += [(PROPERTY, verdict.to_text()), (RUN, json.dumps(run))]
        # xdist's controller reads none of the files.
        item.user_properties.append((STALE, json.dumps(self.stale())))
        item.user_properties.append((SUITE, str(item.path.parent)))
        return verdict

    def _attempts(
        self,
        item: pytest.Item,
        feature: Feature,
        expected: Expectation | None,
        forks: ForkServer | None,
        joint: Joint | None,
    ) -> Verdict:
        """Once, and while it is not as expected, as often as was asked for."""
        told: list[str] = []
        while True:
            # Under xdist this is a worker, which such a signal would end at once, its folders left.
            with as_by_ctrl_c():
                # Another attempt is one in an interpreter of its own.
                verdict = run_feature(
                    feature,
                    *_scenario(item),
                    self._spec,
                    forks=forks,
                    shared=self._shared_folder(),
                    joint=None if told else joint,
                )
            told.append(verdict.status)
            judge(verdict, expected)
            if verdict.outcome in ("conforms", "known") or len(told) >= self._settings.attempts:
                return tried(verdict, told)


def _scenario(item: pytest.Item) -> tuple[str, str]:
    """Module and function, by names that a fresh interpreter can import.

    pytest imports a file under a name of its own choice; the bundled ones have one already, and others are found by
    their folder, which the interpreter gets as the first of its import path.
    """
    name = str(getattr(getattr(item, "function", None), "__name__", ""))
    if item.path.parent == bundled():
        return f"{PACKAGE}.{item.path.stem}", name
    if str(item.path.parent) not in sys.path:
        sys.path.insert(0, str(item.path.parent))
    return item.path.stem, name


def bundled() -> Path:
    """The folder of the bundled suite."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None  # it is part of this distribution
    assert spec.origin is not None
    return Path(spec.origin).parent


def tell(verdict: Verdict, feature: Feature) -> None:
    """What pytest is told of a verdict: nothing, a skip, an expected failure, or a failure without a traceback of ours."""
    if verdict.outcome == "not-tested":
        pytest.skip(f"not tested here: {verdict.text}")
    if verdict.outcome == "known":
        pytest.xfail(f"{verdict.status}, known: {verdict.bug}")
    if verdict.outcome != "conforms":
        pytest.fail(f"{feature.id}: {feature.must}\n{verdict.status}: {verdict.text}", pytrace=False)
