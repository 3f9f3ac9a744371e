# SPDX-License-Identifier: Apache-2.0
"""Pools that do not expect that their process forks, or was forked."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from mutants import REFERENCE
from pytest_compilepool.conformance.mutant import mutant


def _not_checked() -> None:
    """Who has the object may use it."""
    from reference_pool import ReferencePool

    def check(self: Any) -> None:
        if self.dead is not None:
            raise self.dead

    ReferencePool._check = check


@mutant(
    "A forked process takes its parent's pool for its own.",
    kills="fork.child-has-its-own-pool",
    requirements=REFERENCE,
)
def the_parents_pool_is_taken_over(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool

        _not_checked()
        ReferencePool.running = property(lambda self: self.dead is None)


@mutant(
    "A process that forks ends its pool in the forked one.",
    kills="fork.child-has-its-own-pool",
    requirements=REFERENCE,
)
def a_fork_ends_the_parents_pool(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, frames

        real = ReferencePool.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            real(self, *args, **kwargs)
            link = self.link.fileno()
            os.register_at_fork(after_in_child=lambda: frames.send(link, frames.SHUTDOWN))

        ReferencePool.__init__ = init


@mutant(
    "An answer to a job that nobody has sent ends the thread that reads.",
    kills="fork.inherited-pool-is-harmless",
    requirements=REFERENCE,
)
def an_unknown_answer_ends_the_reader(side: str) -> None:
    if side == "parent":
        from reference_pool import ReferencePool, frames, pool

        _not_checked()

        def hear(self: Any, kind: int, number: int, payload: bytes) -> None:
            if kind == frames.READY:
                self.ready.set_result(number)
                return
            future = self.pending.pop(number)
            value = pickle.loads(payload)
            pool.settle(future, None if kind == frames.RESULT else value[0], value)

        ReferencePool._hear = hear


@mutant("A daemonic process may have no pool.", kills="fork.daemonic-process", requirements=REFERENCE)
def not_for_daemons(side: str) -> None:
    if side == "parent":
        import multiprocessing

        from reference_pool import ReferencePool

        real = ReferencePool.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            if multiprocessing.current_process().daemon:
                raise AssertionError("daemonic processes are not allowed to have children")
            real(self, *args, **kwargs)

        ReferencePool.__init__ = init


@mutant(
    "The end of a child of multiprocessing is no end of its pool.",
    kills="fork.daemonic-process",
    requirements=REFERENCE,
)
def a_childs_pool_stays(side: str) -> None:
    if side == "parent":
        import multiprocessing

        from reference_pool import ReferencePool

        real = ReferencePool.shutdown
        ReferencePool.shutdown = lambda self: None if multiprocessing.parent_process() else real(self)
    else:
        from reference_pool import frames, sidecar

        def attend(self: Any, fd: int) -> None:
            # The end of the process is not seen, that of its link is not believed.
            frame = frames.receive(fd) if fd != self.parent else None
            if fd in self.workers:
                self.hear(self.workers[fd], frame)
            elif frame is not None:
                self.obey(frame)
            else:
                self.selector.unregister(fd)

        sidecar.Sidecar.attend = attend


@mutant(
    "The sidecar has a thread that watches.", kills="fork.sidecar-is-single-threaded", requirements=REFERENCE
)
def a_thread_in_the_sidecar(side: str) -> None:
    if side == "sidecar":
        import threading
        import time

        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


@mutant("There is but one sidecar in a machine.", kills="fork.several-processes", requirements=REFERENCE)
def one_sidecar_in_a_machine(side: str) -> None:
    if side == "sidecar":
        _alone()


def _alone() -> None:
    """Ends this process where another one has done this before, and is still there."""
    import fcntl

    held = os.open(os.path.join(os.environ["TMPDIR"], "sidecar.lock"), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("another sidecar is there already")
