# SPDX-License-Identifier: Apache-2.0
"""Parts of a run: which features belong to which, whoever asks and on whatever machine."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALLOWED = "K/N, the K-th of N parts, such as 1/4"

_SHARD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


def parse_shard(text: str) -> tuple[int, int]:
    """The number of the part, from 1, and how many there are. Raises ValueError."""
    found = _SHARD.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(text)
    return int(found[1]), int(found[2])


def in_shard(features: Iterable[str], shard: str | None) -> set[str]:
    """Those of the part; all where there is none. Dealt out by name, so that each group is in each part."""
    every = sorted(set(features))
    if shard is None:
        return set(every)
    number, many = parse_shard(shard)
    return set(every[number - 1 :: many])
