# SPDX-License-Identifier: Apache-2.0
"""Closing any pool within a bound: ask, wait, terminate, kill; the whole tree, never torch's 300 seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.genuine import Genuine
from pytest_compilepool.records import ProcessKey
from pytest_compilepool.torch_compat import PoolRef, live_pools, others, pools
from pytest_compilepool.torch_compat.timers import PromptTimer

TERMINATE_GRACE = 1.0  # seconds between SIGTERM and SIGKILL
KILL_GRACE = 3.0  # seconds in which a killed process must be gone; more means the kernel holds it
THREAD_GRACE = 2.0  # seconds for torch's own threads to see that their processes are gone


@dataclass(frozen=True)
class Closed:
    """How a pool ended.

    how: `asked` (it went by itself), `terminated` (SIGTERM), `killed` (SIGKILL) or `survived`;
    took: seconds; survivors: processes that even SIGKILL did not end; error: what torch's own shutdown
    raised, as text; orphans: how many processes torch's shutdown forgot and this one ended.
    """

    how: str
    took: float
    survivors: tuple[ProcessKey, ...] = ()
    error: str = ""
    orphans: int = 0


def close_pool(ref: PoolRef, timeout: float) -> Closed:
    """Close one pool of any kind and make torch forget it; by its facade where it has one.

    timeout: seconds in which it may go in peace; what is left then is terminated and, a second later,
    killed. Never raises.
    """
    facade = getattr(ref.object, pools.OWNER, None)
    if facade is not None:
        outcome: Closed = facade.shutdown(timeout)
        return outcome
    return close_torch_pool(ref.object, timeout)


@contextlib.contextmanager
def pools_ended_after(timeout: float = 10.0) -> Iterator[None]:
    """Ends, after the block, the pools that torch made in it by itself; those with a facade are left.

    timeout: seconds for each.
    """
    before = [ref.object for ref in live_pools()]
    try:
        yield
    finally:
        for ref in live_pools():
            known = any(ref.object is pool for pool in before)
            if ref.owns_processes and not known and getattr(ref.object, pools.OWNER, None) is None:
                close_torch_pool(ref.object, timeout)


def close_torch_pool(pool: Any, timeout: float) -> Closed:
    """The same for torch's own object, whoever's it is."""
    started = Genuine.monotonic()
    # The tree is noted first: who a grandchild belonged to, nobody can tell once its parent is gone.
    tree = process_tree(pool)
    # Our copies of its pipe ends, too: they can be told by the pipes that shutdown() closes.
    pools.close_sidecar_ends(pool)
    _end_timer(pool)
    asking, errors = _ask(pool)
    asking.join(timeout)
    went = not asking.is_alive()
    left = [key for key in {*tree, *process_tree(pool)} if proctree.alive(key)]
    how, forgotten = "asked", len(left) if went else 0
    if left:
        ended, left = end_processes(left)
        how = ended if not went else how
    asking.join(KILL_GRACE)
    roots = set(others.process_ids(pool))
    reap_adopted(key for key in tree if key.pid not in roots)
    _tidy(pool)
    others.forget(pool)
    return Closed(how, Genuine.monotonic() - started, tuple(left), "; ".join(errors), forgotten)


def process_tree(pool: Any) -> list[ProcessKey]:
    """Every live process of a pool, leaves first: grandchildren (ptxas, g++), workers, sidecar.

    Workers whose sidecar is gone belong to nobody in the tree; they still carry its command line.
    """
    rows = proctree.table()
    roots = [pid for pid in others.process_ids(pool) if pid in rows]
    roots += [row.pid for row in orphaned_workers(pool, rows)]
    found = [rows[pid] for pid in roots]
    for pid in roots:
        found += proctree.descendants(pid, rows)
    return [row.key for row in reversed(found) if not row.dead]


def orphaned_workers(pool: Any, rows: dict[int, proctree.Proc]) -> list[proctree.Proc]:
    """Forked workers of a sidecar that is gone: same command line, another parent."""
    arguments = pools.sidecar_arguments(pool)[1:]
    sidecar = pools.sidecar_pid(pool)
    if not arguments or (sidecar in rows and not rows[sidecar].dead):
        return []
    mine = [row for row in rows.values() if not row.dead and row.pid not in (Genuine.getpid(), sidecar)]
    return [row for row in mine if proctree.command(row.pid)[1:] == arguments]


def end_processes(keys: Iterable[ProcessKey]) -> tuple[str, list[ProcessKey]]:
    """SIGTERM, a second of grace, SIGKILL. Returns how it ended (see Closed) and who is still there."""
    left = [key for key in keys if proctree.alive(key)]
    send_signal(left, signal.SIGTERM)
    left = proctree.wait_gone(left, TERMINATE_GRACE)
    if not left:
        return "terminated", []
    send_signal(left, getattr(signal, "SIGKILL", signal.SIGTERM))
    left = proctree.wait_gone(left, KILL_GRACE)
    return ("survived" if left else "killed"), left


def reap_adopted(keys: Iterable[ProcessKey]) -> None:
    """Wait for dead processes that became children of this one when their own parent died.

    That happens where this process is a child subreaper (the leak watch makes it one). Give only
    processes that no Popen and no multiprocessing.Process of this process answers for.
    """
    for key in keys:
        row = proctree.lookup(key.pid)
        if row is not None and row.key == key and row.dead and row.parent == Genuine.getpid():
            try:
                os.waitpid(key.pid, os.WNOHANG)
            except ChildProcessError:
                pass  # somebody else was faster


def send_signal(keys: Iterable[ProcessKey], number: int) -> None:
    """Signal those of the processes that still are who they were."""
    for key in keys:
        if proctree.alive(key):
            try:
                os.kill(key.pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # it ended in between, or became somebody else's: not ours to end


def _ask(pool: Any) -> tuple[threading.Thread, list[str]]:
    """torch's own shutdown, in a thread since it may wait for minutes."""
    errors: list[str] = []

    def ask() -> None:
        try:
            others.ask_to_shut_down(pool)
        except BaseException as error:  # TimeoutExpired, InvalidStateError, ...: told, not thrown
            errors.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=ask, daemon=True, name="compilepool-shutdown")
    thread.start()
    return thread, errors


def _end_timer(pool: Any) -> None:
    timer = getattr(pool, "timer", None)
    if timer is None:
        return
    timer.quit()
    thread = timer.background_thread
    if isinstance(timer, PromptTimer) and thread is not None and thread is not threading.current_thread():
        thread.join(THREAD_GRACE)


def _tidy(pool: Any) -> None:
    """Reap the sidecar, let the reader end with its pipe, close what is still open."""
    if not pools.is_sidecar_pool(pool):
        return
    pool.process.poll()
    reader = pool.read_thread
    if reader is not threading.current_thread():
        reader.join(THREAD_GRACE)
    for name in ("write_pipe", "read_pipe", "log_file"):
        file = getattr(pool, name, None)
        # A reader that lives holds the buffer of its pipe; closing under it could block for ever.
        if file is None or file.closed or (name == "read_pipe" and reader.is_alive()):
            continue
        try:
            file.close()
        except OSError:
            pass  # flushing into a pipe whose reader is dead
