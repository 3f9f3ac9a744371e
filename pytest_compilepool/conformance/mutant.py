# SPDX-License-Identifier: Apache-2.0
"""Small wrong changes to a pool, made from outside: the test of the suite itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Apply = Callable[[str], None]

ATTRIBUTE = "compilepool_mutant"


@dataclass(frozen=True)
class Mutant:
    """One wrong change. what: in one sentence; kills: features that must notice; requirements: `module:Class` of the pool
    that is changed; place: `module:function` that changes it, called with "parent" in the process of the scenario and
    with "sidecar" in each sidecar that it starts (whose workers are forked from it)."""

    id: str
    what: str
    kills: tuple[str, ...]
    requirements: str
    place: str

    @property
    def group(self) -> str:
        """The first name of its module: `a` for those of `a.py` and of `a_more.py`."""
        return self.id.partition(".")[0].partition("_")[0]


def mutant(what: str, *, kills: tuple[str, ...] | str, requirements: str) -> Callable[[Apply], Apply]:
    """Make a function a mutant; its name, with `-` for `_`, is the mutant's."""

    names = (kills,) if isinstance(kills, str) else kills
    if not isinstance(names, (tuple, list)) or not names or not all(isinstance(one, str) for one in names):
        raise TypeError(f"kills = {kills!r} is not allowed; allowed: ids of features")
    if not isinstance(requirements, str):
        raise TypeError(f"requirements = {requirements!r} is not allowed; allowed: module:Class, a text")

    def declare(apply: Apply) -> Apply:
        group = apply.__module__.rpartition(".")[2]
        found = Mutant(
            f"{group}.{apply.__name__.replace('_', '-')}",
            what,
            tuple(names),
            requirements,
            f"{apply.__module__}:{apply.__name__}",
        )
        setattr(apply, ATTRIBUTE, found)
        return apply

    return declare
