# SPDX-License-Identifier: Apache-2.0
"""A test that forks while a pool lives: the child can do nothing to it, and is told so at once."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

WITHIN = 20.0


def in_a_fork(act) -> str:
    """What became of it in a child: what it gave, or the error. Fails where that takes too long."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            try:
                said = repr(act())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        told = select.select([reading], [], [], WITHIN)[0]
        if not told:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert told, f"the child had said nothing after {WITHIN:g} s"
        return os.read(reading, 10_000).decode()
    finally:
        os.close(reading)


def links(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return found


def test_the_facade_refuses(compile_pool):
    said = in_a_fork(lambda: compile_pool.submit(os.getpid).result(5))
    assert said == f"PoolClosed: submit: this pool belongs to process {os.getpid()}; this is a fork of it"
    assert compile_pool.submit(os.getpid).result(30)


# Up to torch 2.13 this process keeps the sidecar's ends of the pipes of a pool that torch has made.
@pytest.mark.compilepool_leaks(allow=["fds:pipe"], reason="torch leaks two descriptors a pool")
@pytest.mark.parametrize("made", ["by a fixture", "by torch"])
def test_torchs_own_object_cannot_be_written_to(compile_pool_factory, made):
    if made == "by a fixture":
        facade = compile_pool_factory(2)
        pool, end = facade.torch_pool, facade.shutdown
    else:
        from torch._inductor.compile_worker.subproc_pool import SubprocPool

        pool = SubprocPool(2)
        end = pool.shutdown
    try:
        assert pool.submit(os.getpid).result(60)
        began = time.monotonic()
        assert in_a_fork(lambda: pool.submit(os.getpid).result(10)).startswith("OSError: [Errno 9] ")
        assert time.monotonic() - began < 10, "it was told after the job's own time"
        # The parent's pipe is as it was: a second job.
        assert pool.submit(os.getpid).result(30)
    finally:
        end()


def test_a_child_does_not_keep_the_pipes(compile_pool):
    pool = compile_pool.torch_pool
    pipes = {os.readlink(f"/proc/self/fd/{file.fileno()}") for file in (pool.read_pipe, pool.write_pipe)}
    assert pipes <= links(os.getpid())
    assert eval(in_a_fork(lambda: sorted(pipes & links(os.getpid())))) == []
    assert compile_pool.submit(os.getpid).result(30)


def test_a_fork_in_multiprocessing(compile_pool):
    import multiprocessing

    context = multiprocessing.get_context("fork")
    child = context.Process(target=_uses, args=(compile_pool.torch_pool,))
    child.start()
    child.join(WITHIN)
    assert child.exitcode == 7
    child.close()
    assert compile_pool.submit(os.getpid).result(30)


def _uses(pool) -> None:
    try:
        pool.submit(os.getpid).result(10)
    except OSError:
        os._exit(7)
    os._exit(8)
