# SPDX-License-Identifier: Apache-2.0
"""What a check is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wish:
    """What is to be compared, and how strictly; see `Parity.check` for each of them."""

    processes: tuple[int, ...]
    start_methods: tuple[str, ...]
    repeat: int
    target: str | None
    compile: dict[str, Any] | None
    rtol: float | None
    atol: float | None
    bitwise: bool
    min_parallel: float | None
    may_differ: Mapping[str, str]
    raises: str | None
    environment: Mapping[str, str | None]
    before: Callable[[], object] | None
    ready_timeout: float
    shutdown_timeout: float
    limit: float
