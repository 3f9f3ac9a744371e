# SPDX-License-Identifier: Apache-2.0
"""The fresh interpreter: reads its order, does it, writes its answer. Run by `fresh.run`, or by hand to repeat a run:

python -m pytest_compilepool.fresh.child FOLDER
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import random
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_compilepool import proctree
from pytest_compilepool.fresh import callables, values
from pytest_compilepool.fresh.ending import die_with
from pytest_compilepool.fresh.order import Answer, Failure, Order
from pytest_compilepool.fresh.run import ANSWER, EXIT_SECONDS, ORDER, OUTPUT, STAGE
from pytest_compilepool.leaks.processes import adopt_orphans, stop_adopting
from pytest_compilepool.pool import closing
from pytest_compilepool.records import PoolState

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


class Work:
    """One order, step by step; what happened is in `answer`."""

    def __init__(self, order: Order, folder: Path) -> None:
        self.order = order
        self.folder = folder
        self.answer = Answer(
            pid=os.getpid(),
            processes=order.processes,
            start_method=order.start_method,
            target=order.target,
        )
        self._open = contextlib.ExitStack()
        self._pool: Any = None

    def run(self) -> Answer:
        """Do it. What is raised ends up in the answer."""
        try:
            with self._open:
                self._prepare()
                try:
                    self._call()
                except BaseException:
                    if os.getpid() != self.answer.pid:
                        os._exit(1)  # of a fork: the pool, the answer and the rest are its parent's
                    raise
        except BaseException as error:
            self.answer.failure = Failure(
                self.answer.stage, type(error).__name__, _text(error), _trace(error)
            )
        return self.answer

    def stage(self, name: str) -> None:
        """Note where the run has got to; also in a file, should it end without an answer."""
        self.answer.stage = name
        (self.folder / STAGE).write_text(name, encoding="utf-8")

    # -- before anything is compiled -------------------------------------------------------------------

    def _prepare(self) -> None:
        self.stage("import torch")
        with self._timed("import_torch"):
            from pytest_compilepool.torch_compat.installed import installed_version
            from pytest_compilepool.torch_compat.probe import inductor

            inductor("async_compile")
        self.answer.versions = {
            "python": sys.version.split()[0],
            **{name: version for name in ("torch", "triton") if (version := installed_version(name))},
        }
        self._offline()
        self.stage("load the function")
        # Before the pool: what a module does to the environment when it is imported, the sidecar is to know.
        if self.order.before is not None:
            callables.unpack(self.order.before)()
        self._function, _, _ = callables.unpack(self.order.work)
        self._warm()
        self.stage("make the arguments")
        self._device()
        if self.order.target is not None:
            from pytest_compilepool.fresh.elsewhere import on_the_target

            self._open.enter_context(self._gpu.tensors())
            self._function = on_the_target(self._function)
        self._arguments, self._keywords = self._make_arguments()

    def _offline(self) -> None:
        if self.order.target is None:
            return
        self.stage("stub the GPU that is not there")
        from pytest_compilepool.targets import TARGETS
        from pytest_compilepool.torch_compat.offline import OfflineGpu

        gpu = OfflineGpu(TARGETS[self.order.target])
        gpu.install()
        self._open.callback(gpu.undo)
        self.answer.launches = gpu.launches
        self._gpu = gpu

    def _warm(self) -> None:
        from pytest_compilepool.torch_compat.settings import set_config

        if self.order.processes < 2:
            set_config("compile_threads", 1)
            return
        self.stage("warm the pool")
        from pytest_compilepool.pool.facade import CompilePool

        pool = self._pool = CompilePool(
            self.order.processes,
            self.order.start_method,
            ready_timeout=self.order.ready_timeout,
            shutdown_timeout=self.order.shutdown_timeout,
            prime=self.order.prime,
        )
        self._open.callback(self._shut_down)
        with self._timed("warm"):
            pool.warm()
        with self._timed("ready"):
            pool.wait_ready()
        if self.order.prime:
            with self._timed("primed"):
                pool.prime()
        sidecar = pool.sidecar
        self.answer.sidecar = None if sidecar is None else sidecar.pid
        self.answer.workers = [key.pid for key in pool.workers]

    def _shut_down(self) -> None:
        why = self._broken()
        if why:
            self.answer.faults.append(f"its pool was broken when the calls were over: {why}")
        with self._timed("shutdown"):
            self.answer.shutdown = self._pool.shutdown().how

    def _broken(self) -> str:
        """How the pool has lost processes that nobody sent away, or an empty text."""
        from pytest_compilepool.torch_compat.pools import quiesce_was_sent

        status = self._pool.status
        broken = status.state is PoolState.BROKEN
        if status.state is PoolState.QUIESCED:
            broken = quiesce_was_sent(self._pool.torch_pool) is False
        return str(status.reason) if broken else ""

    def _device(self) -> None:
        import torch

        if self.order.target is not None:
            self.answer.device = f"{self.order.target}, not there"
        elif torch.cuda.is_available():
            self.answer.device = torch.cuda.get_device_name()
        else:
            self.answer.device = "cpu"

    def _make_arguments(self) -> tuple[Any, Any]:
        """New ones each time: a function may change what it is given.

        They may come as a function that makes them; on a GPU that is not there they have no data.
        """
        _, arguments, keywords = callables.unpack(self.order.work)
        if callable(arguments):
            self._seed()
            made = arguments()
            arguments = tuple(made) if isinstance(made, (list, tuple)) else (made,)
        if self.order.target is not None:
            from pytest_compilepool.fresh.elsewhere import on_the_target

            arguments, keywords = on_the_target(arguments), on_the_target(keywords)
        return arguments, keywords

    # -- the work itself ---------------------------------------------------------------------------------

    def _call(self) -> None:
        import torch

        function = self._function
        if self.order.compile is not None:
            function = torch.compile(function, **callables.unpack(self.order.compile))
        with self._watched():
            calls = [self._one_call(function, number) for number in range(self.order.calls)]
        self.stage("write what came out")
        state = values.comparable(self._function, "module") if values.is_module(self._function) else {}
        values.write({"calls": calls, "state": state}, str(self.folder / OUTPUT))

    def _one_call(self, function: Any, number: int) -> Any:
        import torch

        arguments, keywords = self._make_arguments() if number else (self._arguments, self._keywords)
        self._seed()
        self.stage("call the function")
        began = time.monotonic()
        output = function(*arguments, **keywords)
        if os.getpid() != self.answer.pid:
            os._exit(0)  # a fork that the function has made and let come back: it has nothing to say
        if self.order.target is None and torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        took = time.monotonic() - began
        if number:
            self.answer.later_calls.append(took)
        else:
            self.answer.seconds["call"] = took
        self.stage("look at what came out")
        changed = {**values.comparable(arguments, "arguments"), **values.comparable(keywords, "keywords")}
        return {"output": values.portable(output), "changed": changed, "forms": values.forms(output)}

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Around the calls: what moved, who compiled what. Noted also when they raise."""
        from pytest_compilepool.counters.interpreter import interpreter_reader, moved_between
        from pytest_compilepool.torch_compat.compiles import CompileWatch
        from pytest_compilepool.torch_compat.kernels import AskedWatch, parallel_feature

        compiles, asked = CompileWatch(), AskedWatch()
        reader = interpreter_reader()
        before = reader.read()
        with contextlib.ExitStack() as stack:
            for watch in (compiles, asked):
                watch.start()
                stack.callback(watch.stop)
            try:
                yield
            finally:
                answer = self.answer
                after = reader.read()
                answer.moved = moved_between(reader, before, after)
                answer.doubts = reader.doubts(before, after)
                answer.caches = {name: os.environ.get(name, "") for name in _CACHES}
                answer.compiles, answer.asked = compiles.compiles, asked.asked
                answer.cpp_threads = sorted(asked.cpp_threads)
                answer.parallel = parallel_feature()
                answer.deaf = compiles.deaf
                if self._pool is not None:
                    answer.jobs = self._pool.job_records

    def _seed(self) -> None:
        if self.order.seed is None:
            return
        import torch

        random.seed(self.order.seed)
        torch.manual_seed(self.order.seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(self.order.seed)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.answer.seconds[name] = time.monotonic() - began


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:  # of somebody's __str__
        return f"(its text cannot be told: {type(another).__name__})"


def _trace(error: BaseException) -> str:
    """The whole traceback, but for the frames in which this file calls the function."""
    first = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename == __file__:
        first = first.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, first or error.__traceback__))
    except Exception:
        return "".join(traceback.format_tb(first))


def main(folder: str, parent: str | None = None) -> int:
    """Do the order in a folder. parent: pid of who waits for it, None where nobody does.

    Returns the exit status: 0 if an answer was written, whatever it says; to nobody also 1 if it is an error.
    """
    where = Path(folder)
    if parent is not None:
        die_with(int(parent))
    orphans = adopt_orphans()
    with open(where / ORDER, "rb") as file:
        order: Order = pickle.load(file)
    sys.path[:] = order.path
    # Says where every thread is, and ends: also while the GIL is held by something that never returns.
    faulthandler.enable()
    faulthandler.dump_traceback_later(order.limit, exit=True)
    answer = Work(order, where).run()
    closing.end_processes([row.key for row in proctree.descendants(os.getpid())])
    stop_adopting(orphans)
    unfinished = where / f"{ANSWER}.part"
    try:
        unfinished.write_text(json.dumps(answer.as_json()), encoding="utf-8")
        os.replace(unfinished, where / ANSWER)
    except OSError as error:
        print(f"compilepool: the answer could not be written to {where}: {error}", file=sys.stderr)
        return 1
    # A thread or an exit handler may still keep it.
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True)
    return 0 if parent is not None else _tell(answer, where)


def _tell(answer: Answer, where: Path) -> int:
    """For who runs it by hand: how it went. Returns the exit status."""
    print(
        f"compilepool: the answer is in {where / ANSWER}, and Triton's cache in {os.environ['TRITON_CACHE_DIR']}"
    )
    if answer.failure is None:
        return 0
    print(f"{answer.failure.type} in stage {answer.failure.stage!r}\n{answer.failure.trace}")
    return 1


if __name__ == "__main__":
    # Under its own name, so that what is pickled here can be read there.
    from pytest_compilepool.fresh.child import main as run_here

    sys.exit(run_here(sys.argv[1]))
