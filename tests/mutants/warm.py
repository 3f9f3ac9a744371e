# SPDX-License-Identifier: Apache-2.0
"""Pools that are not as ready as they say."""

from __future__ import annotations

import time
from typing import Any

from mutants import REFERENCE
from pytest_compilepool.conformance.mutant import mutant


@mutant(
    "The pool says that it is ready when the sidecar was started.",
    kills="warm.ready-when-a-worker-answered",
    requirements=REFERENCE,
)
def ready_at_once(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        ReferencePool.wait_ready = lambda self, timeout: 0
    else:
        time.sleep(3)


@mutant("There is one worker too few.", kills="warm.all-workers-serve", requirements=REFERENCE)
def a_worker_too_few(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.__init__

        def init(self: Any, link: int, processes: int, *rest: Any) -> None:
            real(self, link, max(1, processes - 1), *rest)

        sidecar.Sidecar.__init__ = init


@mutant("There is one worker too many.", kills="warm.never-more-workers", requirements=REFERENCE)
def a_worker_too_many(side: str) -> None:
    if side == "sidecar":
        from reference_pool import sidecar

        real = sidecar.Sidecar.__init__

        def init(self: Any, link: int, processes: int, *rest: Any) -> None:
            real(self, link, processes + 1, *rest)

        sidecar.Sidecar.__init__ = init


@mutant(
    "Nobody notices that the sidecar has ended.",
    kills=("warm.sidecar-cannot-start", "warm.sidecar-cannot-start-says-why"),
    requirements=REFERENCE,
)
def the_end_is_not_noticed(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, frames

        def read(self: Any) -> None:
            while (frame := frames.receive(self.link.fileno())) is not None:
                self._hear(*frame)

        ReferencePool._read = read


@mutant(
    "A sidecar that has ended is told of without a word on how.",
    kills="warm.sidecar-cannot-start-says-why",
    requirements=REFERENCE,
)
def the_end_has_no_cause(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, errors

        ReferencePool._death = lambda self: errors.SidecarDied("the pool is closed")
